"""Answers whoever asks over the network with what a host's own programs said of it last."""

import http.server
import subprocess
import tempfile
import threading
import time
from pathlib import Path

NAMES = ("postgresql", "etcd")
FOLDER = Path(tempfile.mkdtemp())


def measure(name):
    # Both write their files as a whole.
    while True:
        subprocess.run([f"/usr/local/libexec/{name}-metrics", FOLDER / f"{name}.prom"], check=True)
        time.sleep(1)


class Says(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"".join(each.read_bytes() for each in FOLDER.glob("*.prom")))


for each in NAMES:
    threading.Thread(target=measure, args=(each,)).start()
http.server.ThreadingHTTPServer(("", 9199), Says).serve_forever()
