"""A client that speaks HTTP/2 and says exactly what it wants to say.

Also read by the offline tests, which try it with this machine's nginx.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

OFFERED = ["h2", "http/1.1"]


@dataclass
class Stream:
    """What came back on one stream.

    Attributes:
        status: of the response, None without one.
        headers: in lower case, as HTTP/2 has them.
        error: with which the other side gave up the stream or the connection, None if it did not.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: int | None = None


def offering(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same context, in a handshake that offers HTTP/2."""
    context.set_alpn_protocols(OFFERED)
    return context


def exchange(
    connection: ssl.SSLSocket, requests: Sequence[Sequence[tuple[str, str]]], body: bytes = b""
) -> list[Stream]:
    """Send requests side by side, one stream each, and read until all are answered.

    Args:
        connection: on which HTTP/2 was agreed; closed in the end.
        requests: the fields of each, pseudo-fields first, sent as they are.
        body: of each.
    """
    assert connection.selected_alpn_protocol() == "h2"
    # It checks nothing: what is wrong is sent on purpose.
    config = h2.config.H2Configuration(
        header_encoding="utf-8",
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
        validate_inbound_headers=True,
    )
    client = h2.connection.H2Connection(config)
    client.initiate_connection()
    streams: dict[int, Stream] = {}
    for fields in requests:
        number = client.get_next_available_stream_id()
        streams[number] = Stream()
        client.send_headers(number, list(fields), end_stream=not body)
        if body:
            client.send_data(number, body, end_stream=True)
    waiting = set(streams)
    with connection:
        connection.sendall(client.data_to_send())
        while waiting:
            data = connection.recv(65536)
            if not data:
                break
            for event in client.receive_data(data):
                if isinstance(event, h2.events.ConnectionTerminated):
                    for number in waiting:
                        streams[number].error = int(event.error_code or 0)
                    return list(streams.values())
                waiting -= _note(event, streams)
                if isinstance(event, h2.events.DataReceived):
                    client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            try:
                connection.sendall(client.data_to_send())
            except (TimeoutError, BrokenPipeError, ConnectionResetError):
                break
    return list(streams.values())


def _note(event: h2.events.Event, streams: dict[int, Stream]) -> set[int]:
    """Note what an event says of a stream. Returns the number of one that has ended."""
    if isinstance(event, h2.events.ResponseReceived):
        stream = streams[event.stream_id]
        for name, value in event.headers:
            stream.headers[str(name)] = str(value)
        stream.status = int(stream.headers[":status"])
    elif isinstance(event, h2.events.DataReceived):
        streams[event.stream_id].body += event.data
    elif isinstance(event, h2.events.StreamReset):
        streams[event.stream_id].error = int(event.error_code)
        return {event.stream_id}
    elif isinstance(event, h2.events.StreamEnded):
        return {event.stream_id}
    return set()


def get(name: str, path: str = "/", *more: tuple[str, str]) -> list[tuple[str, str]]:
    """The fields of a request."""
    return [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", name),
        (":path", path),
        *more,
    ]
