"""A WSGI application that tells what it sees of its host, for the tests of the role."""

from __future__ import annotations

import ctypes
import functools
import http
import json
import mmap
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Environ = dict[str, Any]
STARTED = time.time()
RELEASE = Path(__file__).resolve().parents[1].name


def attempt(action: Callable[[], object]) -> str:
    """`allowed`, or the name of the error that stopped the action."""
    try:
        action()
    except OSError as error:
        return type(error).__name__ if error.errno is None else os.strerror(error.errno)
    except Exception as error:
        return type(error).__name__
    return "allowed"


def connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=1).close()


def write(directory: str) -> None:
    path = Path(directory, f"probe-{os.getpid()}")
    path.write_text("probe")
    path.unlink()


def run_from(directory: str) -> None:
    """Run a copy of a program from a place that can be written to."""
    path = Path(directory, f"program-{os.getpid()}")
    try:
        path.write_bytes(Path("/bin/true").read_bytes())
        path.chmod(0o700)
        subprocess.run([str(path)], check=True)
    finally:
        path.unlink(missing_ok=True)


def libc(function: str, *arguments: Any) -> None:
    """Call a function of the C library; raises OSError where it returns -1."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, function)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), function)


def write_and_execute() -> None:
    flags = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    mmap.mmap(-1, mmap.PAGESIZE, prot=flags).close()


def become_root() -> None:
    os.setuid(0)


def foreign_processes() -> list[str]:
    """Command lines of processes that are not this user's."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        if path.stat().st_uid != os.getuid():
            found.append(path.joinpath("cmdline").read_text())
    return found


def sandbox(query: dict[str, list[str]]) -> dict[str, Any]:
    """What the sandbox lets through. `connect` and `write` of the query name further targets."""
    ptrace_attach, clone_newuser = 16, 0x10000000
    result: dict[str, Any] = {
        "write /usr": attempt(lambda: write("/usr")),
        "write /etc": attempt(lambda: write("/etc")),
        "write release": attempt(lambda: write(os.path.dirname(__file__))),
        "write state": attempt(lambda: write(os.environ["STATE_DIRECTORY"])),
        "write /tmp": attempt(lambda: write("/tmp")),
        "run from /tmp": attempt(lambda: run_from("/tmp")),
        "run from state": attempt(lambda: run_from(os.environ["STATE_DIRECTORY"])),
        "run from /dev/shm": attempt(lambda: run_from("/dev/shm")),
        "read /home": attempt(lambda: os.listdir("/home")),
        "read /root": attempt(lambda: os.listdir("/root")),
        "ptrace": attempt(lambda: libc("ptrace", ptrace_attach, os.getppid(), 0, 0)),
        "namespace": attempt(lambda: libc("unshare", clone_newuser)),
        "mount": attempt(lambda: libc("mount", b"none", b"/tmp", b"tmpfs", 0, None)),
        "chroot": attempt(lambda: os.chroot("/tmp")),
        "root": attempt(become_root),
        "nice": attempt(lambda: os.nice(-5)),
        "host name": attempt(lambda: socket.sethostname("other")),
        "raw socket": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
        "write and execute": attempt(write_and_execute),
        "kernel log": attempt(lambda: open("/dev/kmsg").close()),
        "kernel setting": attempt(lambda: open("/proc/sys/kernel/printk", "w").close()),
        "foreign processes": foreign_processes(),
        "/tmp": sorted(os.listdir("/tmp")),
        "devices": sorted(os.listdir("/dev")),
    }
    for address in query.get("connect", []):
        result[f"connect {address}"] = attempt(functools.partial(connect, address))
    for directory in query.get("write", []):
        result[f"write {directory}"] = attempt(functools.partial(write, directory))
    return result


def secrets() -> dict[str, str]:
    directory = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"))
    return {path.name: path.read_text() for path in sorted(directory.glob("*"))}


def describe(environ: Environ) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "uid": os.getuid(),
        "groups": os.getgroups(),
        "umask": os.umask(0o077),
        "release": RELEASE,
        "directory": os.path.dirname(os.path.realpath(__file__)),
        "started": STARTED,
        "scheme": environ["wsgi.url_scheme"],
        "script": environ["SCRIPT_NAME"],
        "client": environ.get("REMOTE_ADDR", ""),
        "connection": environ.get("HTTP_CONNECTION", ""),
    }


def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with JSON; `/slow?seconds=1` takes its time, `/memory?mib=100` takes memory."""
    query = parse_qs(environ["QUERY_STRING"])
    status = http.HTTPStatus.OK
    answer: Any = describe(environ)
    match environ["PATH_INFO"]:
        case "/":
            pass
        case "/healthz":
            status, answer = http.HTTPStatus.NO_CONTENT, None
        case "/slow":
            time.sleep(float(query["seconds"][0]))
        case "/memory":
            answer = len(b"x" * (int(query["mib"][0]) << 20))
        case "/sandbox":
            answer = sandbox(query)
        case "/environment":
            answer = dict(os.environ)
        case "/secrets":
            answer = secrets()
        case "/print":
            print("printed by the application", file=sys.stdout)
        case _:
            status = http.HTTPStatus.NOT_FOUND
    body = b"" if answer is None else json.dumps(answer).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(f"{status.value} {status.phrase}", headers)
    return [body]


def create_app() -> Callable[..., Iterable[bytes]]:
    """Return the application, for a service that names a factory."""
    return app
