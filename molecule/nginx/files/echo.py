#!/usr/bin/python3
"""An application behind nginx that answers with what it was asked, on a unix socket and on TCP."""

import json
import os
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler

OWN_HEADERS = {
    "Content-Security-Policy": "default-src data:",
    "X-Frame-Options": "ALLOW-FROM-THE-APPLICATION",
    "Strict-Transport-Security": "max-age=1",
    "X-Request-Id": "the-applications",
    "X-Powered-By": "echo",
}


class Echo(BaseHTTPRequestHandler):
    """Says what arrived. Some paths behave in a way of their own."""

    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "-"

    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        asked = {
            "method": self.command,
            "path": self.path,
            "headers": self.headers.items(),
            "body_bytes": len(self.rfile.read(length)),
            "padding": "x" * 2000,
        }
        if self.path == "/slow":
            time.sleep(5)
        if self.path == "/socket" and "Upgrade" in self.headers:
            self.echo()
            return
        body = json.dumps(asked).encode()
        self.send_response(503 if self.path == "/unavailable" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in OWN_HEADERS.items() if self.path == "/own-headers" else ():
            self.send_header(name, value)
        if self.path.startswith("/kept"):
            self.send_header("Cache-Control", "public, s-maxage=60")
        if self.path == "/kept/varies":
            self.send_header("Vary", "X-Tenant")
            self.send_header("Vary", "Accept-Language")
        self.end_headers()
        self.wfile.write(body)

    def echo(self):
        """Stands in for a WebSocket, whose frames nginx does not look at."""
        self.close_connection = True
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "websocket")
        self.end_headers()
        while data := self.connection.recv(1000):
            self.connection.sendall(data)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET


class OnUnix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


class OnTcp(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


if __name__ == "__main__":
    path, port = sys.argv[1], int(sys.argv[2])
    on_unix = OnUnix(path, Echo)
    os.chmod(path, 0o666)
    threading.Thread(target=on_unix.serve_forever, daemon=True).start()
    OnTcp(("127.0.0.1", port), Echo).serve_forever()
