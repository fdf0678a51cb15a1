#!/usr/bin/env python3
"""How fast a quote is that may be kept, beside a tutorial's set-up and beside one that may not.

    tests/proof/cached_reads.py [--rounds 3] [--seconds 5] [--connections 50] [--write]

On the loopback of this machine, in turn, round by round: the application as tutorials serve it
(gunicorn with three sync workers behind nginx with Debian's nginx.conf, tests/bench/old_ways), and
with this project's configuration of nginx in front of the service's gunicorn. The same quote is
asked for by strangers, which the cache answers, and with a cookie, which it lets through. --write
makes docs/proof/cached-reads.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
REPORT = PROJECT / "docs" / "proof" / "cached-reads.md"
OLD_WAYS = PROJECT / "tests" / "bench" / "old_ways"
FOLDERS = ("", "collections", "host", "tests/unit", "app", "app/tests")
sys.path[:0] = [str(PROJECT / each) for each in FOLDERS]

import conftest  # noqa: E402, F401, it readies Ansible's plugins
from app_performance import cpu_seconds  # noqa: E402
from support import SECRET  # noqa: E402
from tests.unit.roles import test_nginx as role  # noqa: E402
from tests.unit.roles.serving import free_port  # noqa: E402

CPUS = len(os.sched_getaffinity(0))
# wrk greets by what stands in the address.
NAME = "localhost"
QUOTE = "/api/v1/quote?plaza=harbour-bridge&class=car"
PLAIN, TLS = "HTTP", "HTTPS"
TUTORIAL, CACHED, THROUGH = "tutorial", "this project, kept", "this project, with a cookie"
SERVICE = (
    "--preload",
    "--workers",
    str(2 * CPUS + 1),
    "--worker-class",
    "gthread",
    "--threads",
    "2",
)


def wait_for(place: str | tuple[str, int], process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody listens there."""
    kind = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
    while True:
        with socket.socket(kind) as client:
            if client.connect_ex(place) == 0:
                return
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} has ended")
        time.sleep(0.1)


@contextlib.contextmanager
def running(words: list[str], place: str | tuple[str, int], **options: object) -> Iterator[int]:
    """Run a server while the block lasts; yield its process id."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    try:
        wait_for(place, process)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def application(
    home: Path, name: str, options: tuple[str, ...]
) -> contextlib.AbstractContextManager[int]:
    """gunicorn with the application, on a unix socket of that name."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("TOLL_")},
        "TOLL_ENVIRONMENT": "production",
        "TOLL_SECRET_KEY": SECRET,
        "TOLL_DATABASE_URL": f"sqlite:///{home}/toll.db",
        "TOLL_METRICS_DIRECTORY": str(home / f"metrics-{name}"),
    }
    for verb in (("migrate",), ("demo", "seed")):
        command = [sys.executable, "-m", "flask", "--app", "app", "toll", *verb]
        subprocess.run(
            command, cwd=PROJECT / "app", env=environment, check=True, capture_output=True
        )
    path = str(home / f"{name}.sock")
    words = [
        *(sys.executable, "-m", "gunicorn", "app:app", "--bind", f"unix:{path}"),
        *("--no-control-socket", "--keep-alive", "0", *options),
    ]
    return running(words, path, cwd=PROJECT / "app", env=environment, stderr=subprocess.DEVNULL)


def tutorial(
    home: Path, program: str, types: str, certificate: Path, ports: dict[str, int]
) -> Path:
    """Write a tutorial's nginx.conf."""
    place = home / "tutorial"
    (place / "bodies").mkdir(parents=True)
    texts = {name: (OLD_WAYS / name).read_text() for name in ("nginx.conf", "site.conf")}
    replaced = {
        r"(?m)^user .*": "user root;",
        r"/run/old-nginx.pid": f"{place}/pid",
        r"/var/log/old-nginx": str(place),
        r"/etc/nginx/mime.types": types,
        r"/srv/old/site.conf": f"{place}/site.conf",
        r"/srv/old/tutorial/toll.sock": f"{home}/tutorial.sock",
        r"listen 8081": f"listen 127.0.0.1:{ports[PLAIN]}",
        r"listen 8444": f"listen 127.0.0.1:{ports[TLS]}",
        r"/etc/ssl/sites/bench.test": str(certificate),
        r"http \{": "http {\n" + temporary(place),
    }
    for name, text in texts.items():
        for old, new in replaced.items():
            text = re.sub(old, new.replace("\\", r"\\"), text)
        (place / name).write_text(text)
    return place / "nginx.conf"


def temporary(place: Path) -> str:
    """Directives for nginx's temporary files."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"    {kind}_temp_path {place}/bodies/{kind};\n" for kind in kinds)


def ours(home: Path, program: str, types: str, certificate: Path, ports: dict[str, int]) -> Path:
    """Write the role's configuration, for a site that toll-app's description describes."""
    place = home / "ours"
    (place / "key").mkdir(parents=True)
    site = {
        "name": "toll-app",
        "domains": [NAME],
        "certificate": role.SITE["certificate"],
        "certificate_key": role.SITE["certificate_key"],
        "http": "serve",
        "upstream": f"unix:{home}/ours.sock",
        "cache": {"locations": ["/api/v1/quote"], "key_path": str(place / "key")},
    }
    said = subprocess.run([program, "-V"], check=True, capture_output=True, text=True).stderr
    packages = {
        "nginx": re.search(r"nginx/([\d.]+)", said)[1],  # type: ignore[index]
        "libssl3": re.search(r"(?:running|built) with OpenSSL ([\d.]+)", said)[1],  # type: ignore[index]
    }
    files = role.configuration(
        "Debian",
        nginx_sites=[site],
        nginx_http_port=ports[PLAIN],
        nginx_https_port=ports[TLS],
        nginx_ipv6=False,
        # All of it comes from one address.
        nginx_unlimited_clients=["127.0.0.0/8"],
        wsgi_host={"packages": packages},
    )
    chain = certificate / "fullchain.pem", certificate / "privkey.pem"
    return role.laid_out(place, files, (Path(program), Path(types)), chain)


def load(url: str, seconds: int, connections: int, headers: list[str]) -> tuple[float, int]:
    """Ask for some seconds; return the answers a second, all good, and how many there were."""
    done = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{seconds}s", "--timeout", "30s", "--header", f"Host: {NAME}"),
            *(part for header in headers for part in ("--header", header)),
            url,
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "Non-2xx" in done or "Socket errors" in done:
        raise RuntimeError(done)
    rate = re.search(r"Requests/sec: +([\d.]+)", done)
    answers = re.search(r"(\d+) requests in", done)
    assert rate, done
    assert answers, done
    return float(rate[1]), int(answers[1])


def measure(
    rounds: int, seconds: int, connections: int
) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Return the rate and the CPU time of each round, by protocol and by what is asked."""
    program, types = role.found_nginx()
    runs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cached-reads-")))
        home.chmod(0o755)
        certificate = home / "certificate"
        certificate.mkdir()
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        words += ["-nodes", "-days", "1", "-subj", f"/CN={NAME}"]
        words += ["-keyout", "privkey.pem", "-out", "fullchain.pem"]
        subprocess.run(words, cwd=certificate, check=True, capture_output=True)
        pids = {
            "tutorial": [stack.enter_context(application(home, "tutorial", ("--workers", "3")))],
            "ours": [stack.enter_context(application(home, "ours", SERVICE))],
        }
        ports: dict[str, dict[str, int]] = {}
        for name, write in (("tutorial", tutorial), ("ours", ours)):
            ports[name] = {PLAIN: free_port(), TLS: free_port()}
            path = write(home, str(program), str(types), certificate, ports[name])
            words = [str(program), "-p", str(path.parent), "-c", str(path), "-g", "daemon off;"]
            pids[name].append(
                stack.enter_context(running(words, ("127.0.0.1", ports[name][PLAIN])))
            )
        for number in range(rounds + 1):
            for protocol in (PLAIN, TLS):
                for what, name, headers in (
                    (TUTORIAL, "tutorial", []),
                    (CACHED, "ours", []),
                    (THROUGH, "ours", ["Cookie: a=b"]),
                ):
                    url = f"{protocol.lower()}://{NAME}:{ports[name][protocol]}{QUOTE}"
                    before = sum(map(cpu_seconds, pids[name]))
                    # The first round warms up.
                    rate, answers = load(url, seconds if number else 1, connections, headers)
                    cpu = (sum(map(cpu_seconds, pids[name])) - before) / answers * 1000
                    if number:
                        said = f"{protocol} {what}: {rate:.0f}/s, {cpu:.3f} ms"
                        print(said, file=sys.stderr, flush=True)
                        runs.setdefault((protocol, what), []).append((rate, cpu))
    return runs


def table(runs: dict[tuple[str, str], list[tuple[float, float]]]) -> str:
    """Medians, and ratios of neighbouring turns with their least and most."""
    lines = [
        "|  | what | answers a second | ratio to the tutorial | CPU ms per answer | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (protocol, what), each in runs.items():
        rates, times = zip(*each, strict=True)
        other_rates, other_times = zip(*runs[protocol, TUTORIAL], strict=True)
        columns = [
            protocol,
            what,
            f"{statistics.median(rates):.0f}",
            ratio(rates, other_rates),
            f"{statistics.median(times):.3f}",
            ratio(other_times, times),
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def ratio(above: Sequence[float], below: Sequence[float]) -> str:
    """The median of the ratios of neighbouring turns, with the least and the most."""
    each = [a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(each):.1f} ({min(each):.1f} to {max(each):.1f})"


def main() -> None:
    """Measure, print the table, and write the report if that was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found = table(measure(options.rounds, options.seconds, options.connections))
    print(found)
    if options.write:
        today = time.strftime("%Y-%m-%d", time.gmtime())
        turns = f"{options.rounds} turns of {options.seconds} s each"
        head = f"""# How fast a quote is that may be kept

Written by `.venv/bin/python tests/proof/cached_reads.py --write` on {today}: the same quote over
and over, {options.connections} connections of wrk on the same {CPUS} CPUs, {turns}, medians; ratios
are of neighbouring turns, with the least and the most. *Tutorial* is gunicorn with three sync
workers behind Debian's nginx.conf; *kept* is what nginx answers for toll-app from its cache, which
asks the application once in three seconds; *with a cookie* goes through to it. CPU is what nginx
and gunicorn take for an answer, which other work on the machine changes less than the rate.

"""
        REPORT.write_text(f"{head}{found}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
