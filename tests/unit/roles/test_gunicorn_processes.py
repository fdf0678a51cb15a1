"""How a worker begins and ends, with a real gunicorn.

It has answered before clients ask, and ends as Python promises, without what costs more.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .render import FAMILIES, render
from .test_gunicorn_systemd import REQUIRED, ROLE

# Writes down what becomes of each process that has it.
APP = """
import atexit, os, sys, threading, time

def note(what):
    with open("notes", "a") as file:
        file.write(f"{what} {os.getpid()}\\n")

class Last:
    def __del__(self):
        os.write(notes, f"deleted {os.getpid()}\\n".encode())

notes = os.open("notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
last = Last()
atexit.register(note, "atexit")

def late():
    time.sleep(0.5)
    note("thread")

def app(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        os._exit(7)
    threading.Thread(target=late).start()
    sys.stdout.write("printed without an end of line")
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""
START_SECONDS = 20


def ask(path: Path) -> str:
    """The body of what the application answers, which is a worker's number."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(4096), b""))
                return answer.partition(b"\r\n\r\n")[2].decode()
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
@pytest.mark.parametrize("quick", [True, False])
def test_a_worker_ends_as_python_does_but_for_its_objects(
    tmp_path: Path, worker_class: str, quick: bool
) -> None:
    variables = {
        **REQUIRED,
        "gunicorn_systemd_workers": 1,
        "gunicorn_systemd_worker_class": worker_class,
        "gunicorn_systemd_quick_exit": quick,
        "gunicorn_systemd_warm_up_paths": [],
    }
    (tmp_path / "gunicorn.conf.py").write_text(
        render(ROLE, "gunicorn.conf.py.j2", FAMILIES[0], **variables)
    )
    (tmp_path / "app.py").write_text(APP)
    command = [sys.executable, "-m", "gunicorn", "--bind", f"unix:{tmp_path}/socket"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        worker = ask(tmp_path / "socket")
        os.kill(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "printed without an end of line" in out
    notes = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    ended = [what for what, pid in notes if pid == worker]
    assert ended == (["thread", "atexit"] if quick else ["thread", "atexit", "deleted"])
    master = [what for what, pid in notes if pid == str(process.pid)]
    assert master == (["atexit"] if quick else ["atexit", "deleted"])


WARM_APP = """
import json, time
from wsgiref.validate import validator

seen = []

def application(environ, start_response):
    seen.append(environ["PATH_INFO"] + "?" + environ["QUERY_STRING"])
    if environ["PATH_INFO"] == "/broken":
        raise RuntimeError("broken on purpose")
    if environ["PATH_INFO"] == "/hangs":
        time.sleep(3600)
    assert environ.get("HTTP_HOST", "localhost") == "localhost"
    body = json.dumps(seen).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

app = validator(application)
"""


def served(folder: Path, **variables: object) -> tuple[str, str]:
    """What a client is answered first, and what gunicorn wrote."""
    text = render(ROLE, "gunicorn.conf.py.j2", FAMILIES[0], **REQUIRED, **variables)
    (folder / "gunicorn.conf.py").write_text(text)
    (folder / "app.py").write_text(WARM_APP)
    command = [sys.executable, "-m", "gunicorn", "--bind", f"unix:{folder}/socket"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        answer = ask(folder / "socket")
        process.terminate()
        _, err = process.communicate(timeout=60)
    return answer, err


def test_a_worker_has_answered_before_clients_ask(tmp_path: Path) -> None:
    """By default the path that is judged; as a server asks, which wsgiref validates."""
    answer, err = served(
        tmp_path,
        gunicorn_systemd_workers=1,
        gunicorn_systemd_check_path="/ready?deep=1",
    )
    assert json.loads(answer) == ["/ready?deep=1", "/?"]
    assert "beforehand" not in err


def test_what_cannot_be_asked_beforehand_is_told_and_served(tmp_path: Path) -> None:
    answer, err = served(
        tmp_path,
        gunicorn_systemd_workers=1,
        gunicorn_systemd_warm_up_paths=["/broken", "/fine"],
    )
    assert json.loads(answer) == ["/broken?", "/fine?", "/?"]
    assert "/broken could not be asked for beforehand" in err
    assert "broken on purpose" in err


def test_what_is_not_answered_beforehand_keeps_nothing_else_waiting(tmp_path: Path) -> None:
    """A readiness whose database says nothing: no worker answered anything, not its liveness."""
    answer, err = served(
        tmp_path,
        gunicorn_systemd_workers=1,
        gunicorn_systemd_warm_up_paths=["/hangs", "/fine"],
    )
    assert json.loads(answer) == ["/hangs?", "/?"]
    assert "The warm-up takes more than 2 s" in err


@pytest.mark.parametrize(
    "variables",
    [
        {"gunicorn_systemd_warm_up_paths": []},
        {"gunicorn_systemd_worker_class": "asgi"},
        # What is late with its answer would run beside a client's request.
        {"gunicorn_systemd_worker_class": "sync"},
        {"gunicorn_systemd_threads": 1},
    ],
)
def test_nothing_is_asked_where_nothing_is_to_be(variables: dict[str, object]) -> None:
    text = render(ROLE, "gunicorn.conf.py.j2", FAMILIES[0], **REQUIRED, **variables)
    compile(text, "gunicorn.conf.py", "exec")
    assert "post_worker_init" not in text


def test_a_worker_that_cannot_start_still_ends_the_service(tmp_path: Path) -> None:
    """Its exit code tells the master that another one would fail as well."""
    variables = {
        **REQUIRED,
        "gunicorn_systemd_workers": 1,
        "gunicorn_systemd_preload": False,
        "gunicorn_systemd_quick_exit": True,
    }
    (tmp_path / "gunicorn.conf.py").write_text(
        render(ROLE, "gunicorn.conf.py.j2", FAMILIES[0], **variables)
    )
    (tmp_path / "app.py").write_text("raise RuntimeError('no settings')\n")
    command = [sys.executable, "-m", "gunicorn", "--bind", f"unix:{tmp_path}/socket"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 3
    assert "no settings" in done.stderr
