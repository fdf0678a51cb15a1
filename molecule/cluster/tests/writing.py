"""Writes one row after the other, as an application would, and notes which were acknowledged.

Started on a host with the URL of the database, the first number and the seconds on standard input.
Prints a line of JSON for each row that was acknowledged: its number, and when.
"""

import json
import sys
import time

import psycopg2  # type: ignore[import-untyped]


def main():
    told = json.load(sys.stdin)
    end, number, connection = time.time() + told["seconds"], told["first"], None
    while time.time() < end:
        try:
            if connection is None:
                connection = psycopg2.connect(told["url"])
            number += 1
            with connection, connection.cursor() as cursor:
                cursor.execute("INSERT INTO written VALUES (%s, inet_server_addr())", (number,))
            print(json.dumps([number, time.time()]), flush=True)
            time.sleep(0.02)
        except psycopg2.Error as error:
            print(error, file=sys.stderr)
            # Whether it was written nobody knows, so it is not written again.
            connection = None
            time.sleep(0.1)


main()
