"""What a site serves while its authority, its host's clock or its certbot fails: certificates.md.

    .venv/bin/python tests/proof/certificates.py [--case WORD]... [--write]

Everything is real and on the loopback: nginx, the certbot that the role locks, and Pebble, an
authority for tests, unpacked from their packages and never installed. For each fault another kind
of key is wanted, so that the authority has to be asked; `wsgi.host.certificate` is run, and five
times a second a client looks at what is served. Then the fault is mended, and the module run again.

The second table is when certbot renews: certificates of several lifetimes, with the time moved.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import http.server
import json
import os
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
REPORT = PROJECT / "docs/proof/certificates.md"
CACHE = PROJECT / ".cache/certificates"
LOCK = PROJECT / "roles/certbot/files/requirements.txt"
PACKAGES = ("nginx", "nginx-common", "pebble", "libfaketime")
DOMAIN = "shop.example.com"
LOOKS_A_SECOND = 5
LIFETIMES_DAYS = (90, 45, 6)

# Runs the module's own work with what a file says, as Ansible would.
DRIVER = """
import json, sys
from ansible_collections.wsgi.host.plugins.module_utils.certificates import serving
from ansible_collections.wsgi.host.plugins.module_utils.certificates.run import Run
from ansible_collections.wsgi.host.plugins.modules import certificate

class Module:
    check_mode = False
    params = json.load(open(sys.argv[1]))
    warnings = []
    def warn(self, message): self.warnings.append(message)
    def selinux_enabled(self): return False

run = Run(Module())
result = certificate.work(run)
print(json.dumps({"failures": run.failures, "changed": result["changed"],
                  "served": serving.served(run), "warnings": run.module.warnings}))
"""


def tools() -> dict[str, Path]:
    """Paths of the programs, unpacked where they are not yet."""
    unpacked = CACHE / "root"
    if not (unpacked / "usr/bin/pebble").exists():
        packages = CACHE / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        command = ["apt-get", "-qq", "download", *PACKAGES]
        subprocess.run(command, cwd=packages, check=True)
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, unpacked], check=True)
        # Debian 12's has no renewal information; that of the test hosts' image has.
        image = output("podman", "images", "--quiet", "localhost/testhost-acme").split()
        if image:
            container = output("podman", "create", image[0]).strip()
            output("podman", "cp", f"{container}:/usr/bin/pebble", str(unpacked / "usr/bin/pebble"))
            output("podman", "rm", container)
    bin_ = Path(sys.executable).parent
    certbot = CACHE / "certbot/bin/certbot"
    if not certbot.exists():
        subprocess.run([bin_ / "uv", "venv", "-q", CACHE / "certbot"], check=True)
        into: list[str | Path] = ["--python", CACHE / "certbot/bin/python", "-r", LOCK]
        subprocess.run([bin_ / "uv", "pip", "install", "-q", *into], check=True)
    return {
        "nginx": unpacked / "usr/sbin/nginx",
        "pebble": unpacked / "usr/bin/pebble",
        "faketime": next(unpacked.rglob("libfaketime.so.1")),
        "certbot": certbot,
    }


def output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(port: int) -> None:
    """Until somebody listens."""
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


class Between(http.server.BaseHTTPRequestHandler):
    """Stands between certbot and the authority, and does what a case asks of it."""

    protocol_version = "HTTP/1.1"
    upstream = 0
    delay = 0.0
    limited = False

    def forward(self) -> None:
        time.sleep(self.delay)
        if self.limited and self.path.startswith("/order-plz"):
            kind = "urn:ietf:params:acme:error:rateLimited"
            said = {"type": kind, "detail": "too many certificates (5) issued, retry in 3600 s"}
            body = json.dumps(said).encode()
            self.send_response(429)
            for name, value in (
                ("Content-Type", "application/problem+json"),
                ("Retry-After", "3600"),
                ("Content-Length", str(len(body))),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        client = http.client.HTTPSConnection(
            "127.0.0.1", self.upstream, context=ssl._create_unverified_context()
        )
        client.request(self.command, self.path, body, dict(self.headers))
        answer = client.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        client.close()

    do_GET = do_POST = do_HEAD = forward

    def log_message(self, *_: object) -> None:
        pass


class Silent(http.server.ThreadingHTTPServer):
    """Says nothing of an authority that is down, which is what a case is about."""

    def handle_error(self, *_: object) -> None:
        pass


@dataclass
class Looks:
    """What a client saw: one word for each look, with the second it was at."""

    seen: list[tuple[float, str, str]] = field(default_factory=list)

    @property
    def bad(self) -> list[str]:
        return [word for _, word, _ in self.seen if word != "good"]

    def told(self) -> str:
        """As a cell of the table."""
        serials = list(dict.fromkeys(serial for _, word, serial in self.seen if word == "good"))
        end = self.seen[-1][0] if self.seen else 0
        what = "the certificate of before" if len(serials) == 1 else f"{len(serials)} certificates"
        bad = f", **{len(self.bad)} without: {self.bad[0]}**" if self.bad else ""
        return f"{what}, in {len(self.seen)} looks over {end:.0f} s{bad}"


class World:
    """A host with its web server, and an authority."""

    def __init__(self, root: Path, programs: dict[str, Path]) -> None:
        self.root, self.programs = root, programs
        self.https, self.http, self.directory = free_port(), free_port(), free_port()
        self.management, self.between = free_port(), free_port()
        self.configuration, self.links = root / "letsencrypt", root / "sites"
        self.challenges = root / "challenges"
        self.challenges.mkdir()
        self.environment: dict[str, str] = {}
        self.pebble: subprocess.Popen[bytes] | None = None
        self.roots: set[str] = set()
        self.key_type = "ecdsa-p256"
        self._own_tls()
        self._between()
        self._certbot()
        self.nginx_file = root / "nginx.conf"
        self.nginx: subprocess.Popen[bytes] | None = None

    # --- The authority -----------------------------------------------------------------------

    def _own_tls(self) -> None:
        """The certificate of the authority's own HTTPS."""
        names = "subjectAltName=IP:127.0.0.1"
        command: list[str | Path] = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        command += ["ec_paramgen_curve:P-256", "-nodes", "-days", "3650", "-subj", "/CN=127.0.0.1"]
        command += ["-keyout", self.root / "own.key", "-out", self.root / "own.pem"]
        command += ["-addext", names, "-addext", "basicConstraints=critical,CA:TRUE"]
        subprocess.run(command, check=True, capture_output=True)

    def start(self, environment: dict[str, str] | None = None, days: float = 90) -> None:
        """Start Pebble anew, which forgets its accounts and makes another root."""
        self.stop()
        told = {
            "listenAddress": f"127.0.0.1:{self.directory}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(self.root / "own.pem"),
            "privateKey": str(self.root / "own.key"),
            "httpPort": self.http,
            "tlsPort": self.https,
            "ocspResponderURL": "",
            "certificateValidityPeriod": int(days * 86400),
        }
        (self.root / "pebble.json").write_text(json.dumps({"pebble": told}))
        usual = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        usual["PEBBLE_VA_ALWAYS_VALID"] = "1"
        self.pebble = subprocess.Popen(
            [self.programs["pebble"], "-config", self.root / "pebble.json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **usual, **(environment or {})},
        )
        wait_for(self.directory)
        wait_for(self.management)
        client = http.client.HTTPSConnection(
            "127.0.0.1", self.management, context=ssl._create_unverified_context()
        )
        client.request("GET", "/roots/0")
        self.roots.add(client.getresponse().read().decode())
        (self.root / "roots.pem").write_text("".join(self.roots))

    def stop(self) -> None:
        if self.pebble:
            self.pebble.terminate()
            self.pebble.wait()
            self.pebble = None

    def _between(self) -> None:
        Between.upstream = self.directory
        server = Silent(("127.0.0.1", self.between), Between)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.root / "own.pem", self.root / "own.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    # --- The host ----------------------------------------------------------------------------

    def _certbot(self) -> None:
        script = self.root / "certbot"
        script.write_text(
            "#!/bin/sh\n"
            f"export REQUESTS_CA_BUNDLE=${{BUNDLE-{self.root}/own.pem}}\n"
            f'exec {self.programs["certbot"]} "$@" --work-dir {self.root}/work '
            f"--logs-dir {self.root}/logs\n"
        )
        script.chmod(0o755)

    def serve(self) -> None:
        """Start nginx with what the link leads to."""
        pair = self.links / "shop"
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"  {kind}_temp_path {self.root}/temporary;\n" for kind in kinds)
        self.nginx_file.write_text(
            f"daemon off;\npid {self.root}/nginx.pid;\nerror_log {self.root}/error.log;\n"
            f"events {{}}\nhttp {{\n  access_log off;\n{places}"
            f"  server {{\n    listen 127.0.0.1:{self.https} ssl;\n    server_name {DOMAIN};\n"
            f"    ssl_certificate {pair}/fullchain.pem;\n"
            f"    ssl_certificate_key {pair}/privkey.pem;\n  }}\n}}\n"
        )
        argv: list[str | Path] = [
            self.programs["nginx"],
            "-c",
            self.nginx_file,
            "-e",
            self.root / "error.log",
        ]
        self.nginx = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        wait_for(self.https)

    @property
    def reload(self) -> list[str]:
        base = [str(self.programs["nginx"]), "-c", str(self.nginx_file)]
        return [*base, "-e", str(self.root / "error.log"), "-s", "reload"]

    def run(self, **options: Any) -> dict[str, Any]:
        """The module's result; its failures say what an operator reads."""
        params = {
            "certificates": [{"name": "shop", "domains": [DOMAIN]}],
            "obtain": True,
            "ahead": False,
            "links_directory": str(self.links),
            "challenge": {
                "authenticator": "webroot",
                "arguments": ["--webroot-path", str(self.challenges)],
                "settings": {},
                "directory": str(self.challenges),
            },
            "directory_url": f"https://127.0.0.1:{self.between}/dir",
            "email": "",
            "key_type": self.key_type,
            "probe": False,
            "serving_address": f"127.0.0.1:{self.https}",
            "reload_argv": self.reload if self.nginx else ["true"],
            "certbot": str(self.root / "certbot"),
            "configuration_directory": str(self.configuration),
            "reload_marker": str(self.root / "run/pending"),
            "state_directory": str(self.root / "state"),
            "fail": True,
            **options,
        }
        (self.root / "params.json").write_text(json.dumps(params))
        (self.root / "driver.py").write_text(DRIVER)
        done = subprocess.run(
            [sys.executable, self.root / "driver.py", self.root / "params.json"],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "PYTHONPATH": str(PROJECT / "collections"),
                **self.environment,
            },
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return dict(json.loads(done.stdout))

    def want_another_key(self) -> None:
        self.key_type = "ecdsa-p384" if self.key_type == "ecdsa-p256" else "ecdsa-p256"

    @contextlib.contextmanager
    def looking(self) -> Iterator[Looks]:
        """Look until the block ends, each time in a handshake of its own."""
        looks, over, begun = Looks(), threading.Event(), time.monotonic()

        def look() -> None:
            while not over.wait(1 / LOOKS_A_SECOND):
                context = ssl.create_default_context(cafile=str(self.root / "roots.pem"))
                try:
                    with (
                        socket.create_connection(("127.0.0.1", self.https), 5) as raw,
                        context.wrap_socket(raw, server_hostname=DOMAIN) as connection,
                    ):
                        shown = connection.getpeercert() or {}
                        word, serial = "good", str(shown.get("serialNumber"))
                except ssl.SSLCertVerificationError as error:
                    word, serial = error.verify_message, ""
                except OSError as error:
                    word, serial = str(error), ""
                looks.seen.append((time.monotonic() - begun, word, serial))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield looks
        finally:
            over.set()
            thread.join()

    def close(self) -> None:
        self.stop()
        if self.nginx:
            self.nginx.terminate()
            self.nginx.wait()


# --- The faults ------------------------------------------------------------------------------

Do = Callable[[World], None]


@dataclass(frozen=True)
class Case:
    """A fault, and what mends it; `fails` is whether a run then has to fail."""

    title: str
    breaks: Do
    mends: Do
    fails: bool = True


def setting(**values: object) -> Do:
    def act(_: World) -> None:
        for name, value in values.items():
            setattr(Between, name, value)

    return act


def restart(**environment: str) -> Do:
    return lambda world: world.start(environment)


def environment(**values: str) -> Do:
    def act(world: World) -> None:
        world.environment = {
            name: value.format(**{key: str(path) for key, path in world.programs.items()})
            for name, value in values.items()
        }

    return act


def account_gone(world: World) -> None:
    shutil.rmtree(world.configuration / "accounts")


def links_as_files(world: World) -> None:
    live = (world.links / "shop").resolve()
    target = (live / "chain.pem").resolve()
    (live / "chain.pem").unlink()
    shutil.copy(target, live / "chain.pem")


def deleted(world: World) -> None:
    name = (world.links / "shop").resolve().name
    subprocess.run(
        [
            *(world.root / "certbot", "delete", "--non-interactive"),
            *("--cert-name", name, "--config-dir", world.configuration),
        ],
        check=True,
        capture_output=True,
    )
    world.stop()


def killed(world: World) -> None:
    """Whoever kills it: certbot is gone after a second, in the middle of an order."""
    setting(delay=1.0)(world)
    script = world.root / "certbot"
    script.write_text(script.read_text().replace("exec ", "exec timeout -s KILL 2 "))


def not_killed(world: World) -> None:
    setting(delay=0.0)(world)
    world._certbot()


def broken_configuration(world: World) -> None:
    world.nginx_file.write_text(world.nginx_file.read_text() + "nonsense\n")


def mended_configuration(world: World) -> None:
    world.nginx_file.write_text(world.nginx_file.read_text().replace("nonsense\n", ""))


def nothing(_: World) -> None:
    pass


MOVED = {"LD_PRELOAD": "{faketime}", "NO_FAKE_STAT": "1"}
CASES = (
    Case("the authority is down", lambda world: world.stop(), restart()),
    Case("it takes 2 s for each answer", setting(delay=2.0), setting(delay=0.0), fails=False),
    Case("it limits: 429 with Retry-After", setting(limited=True), setting(limited=False)),
    Case("it refuses each nonce", restart(PEBBLE_WFE_NONCEREJECT="100"), restart()),
    Case(
        "it refuses a tenth of the nonces", restart(PEBBLE_WFE_NONCEREJECT="10"), restart(), False
    ),
    Case("it finds no challenge", restart(PEBBLE_VA_ALWAYS_VALID="0"), restart()),
    Case("another CA signed its own TLS", environment(BUNDLE="/dev/null"), environment()),
    Case(
        "the host's clock is two years ahead", environment(**MOVED, FAKETIME="+730d"), environment()
    ),
    Case(
        "the host's clock is two years behind",
        environment(**MOVED, FAKETIME="-730d"),
        environment(),
    ),
    Case("it has forgotten the account", restart(), nothing, fails=False),
    Case("the account's directory is gone", account_gone, nothing, fails=False),
    Case("one of certbot's links is a file", links_as_files, nothing, fails=False),
    Case("deleted in certbot, and the authority is down", deleted, restart()),
    Case("certbot is killed in the middle", killed, not_killed),
    Case("nginx's configuration is wrong", broken_configuration, mended_configuration),
)


def attempt(world: World, case: Case) -> tuple[list[str], bool]:
    """A row of the table, and whether all was as it has to be."""
    print(f"{case.title} ...", flush=True)
    with world.looking() as meanwhile:
        case.breaks(world)
        world.want_another_key()
        result = world.run()
    failures = list(result["failures"].values())
    case.mends(world)
    with world.looking() as after:
        again = world.run()
        time.sleep(1)
    said = failures[0].split("\n")[0] if failures else "nothing: obtained"
    for place in (CACHE / "root", world.root, PROJECT):
        said = said.replace(str(place), "")
    served = set(result["served"].values())
    good = (
        bool(failures) is case.fails
        and not again["failures"]
        and not meanwhile.bad
        and not after.bad
        # What the message says of each name is what a client saw. The moved clock judges by itself.
        and (not failures or "FAKETIME" in world.environment or len(served) == 1)
    )
    if not good:
        print(f"  WRONG: {result} {again} {meanwhile.bad[:3]} {after.bad[:3]}", flush=True)
    row = [case.title, said.replace("|", "\\|")[:230], meanwhile.told()]
    return [*row, "obtained" if not again["failures"] else "**not obtained**"], good


# --- When certbot renews ----------------------------------------------------------------------


def renews(world: World, folder: Path, share: float, days: float) -> bool:
    """Whether `certbot renew` renews a copy of what there is, at a share of the lifetime."""
    copy = world.root / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, symlinks=True)
    for path in (copy / "renewal").glob("*.conf"):
        path.write_text(path.read_text().replace(str(folder), str(copy)))
    seconds = int(share * days * 86400)
    done = subprocess.run(
        [world.root / "certbot", "renew", "--config-dir", copy, "--no-random-sleep-on-renew"],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "LD_PRELOAD": str(world.programs["faketime"]),
            "NO_FAKE_STAT": "1",
            "FAKETIME": f"+{seconds}s",
        },
    )
    if "Congratulations" in done.stdout:
        return True
    assert "not yet due" in done.stdout, done.stdout + done.stderr
    return False


def due(world: World, days: float, information: bool) -> float:
    """The share of the lifetime from which on it is renewed, to a hundredth."""
    world.start(days=days)
    folder = world.root / f"of-{days}-days"
    shutil.rmtree(folder, ignore_errors=True)
    command: list[str | Path] = [
        world.root / "certbot",
        "certonly",
        "--non-interactive",
        "--agree-tos",
    ]
    command += ["--register-unsafely-without-email", "--config-dir", folder, "--domain", DOMAIN]
    command += ["--server", f"https://127.0.0.1:{world.between}/dir", "--authenticator", "webroot"]
    command += ["--webroot-path", world.challenges]
    subprocess.run(command, check=True, capture_output=True)
    if not information:
        (path,) = (folder / "renewal").glob("*.conf")
        text = path.read_text()
        path.write_text(f"{text}[acme_renewal_info]\nari_retry_after = 2199-01-01T00:00:00\n")
    low, high = 0.0, 1.0
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if renews(world, folder, middle, days) else (middle, high)
    return high


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", default=[], help="only those with this word")
    parser.add_argument("--write", action="store_true", help="write docs/proof/certificates.md")
    options = parser.parse_args()
    programs = tools()
    cases = [
        case for case in CASES if not options.case or any(w in case.title for w in options.case)
    ]
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), programs)
        try:
            world.start()
            first = world.run()
            assert not first["failures"], first
            world.serve()
            for case in cases:
                row, good = attempt(world, case)
                rows.append(row)
                wrong += not good
            renewals = []
            for days in () if options.case else LIFETIMES_DAYS:
                for information in (True, False):
                    share = due(world, days, information)
                    source = "the authority (ARI)" if information else "its lifetime"
                    left = days * (1 - share)
                    line = [f"{days} days", source, f"{share:.0%}", f"{left:.1f} days"]
                    renewals.append([*line, f"{left - 0.5:.1f} days"])
                    print(line, flush=True)
        finally:
            world.close()
    if options.write:
        REPORT.write_text(report(rows, renewals))
    return 1 if wrong else 0


def report(rows: list[list[str]], renewals: list[list[str]]) -> str:
    """The page."""

    def table(head: list[str], lines: list[list[str]]) -> str:
        marks = ["---"] * len(head)
        return "\n".join(f"| {' | '.join(line)} |" for line in [head, marks, *lines])

    faults = table(
        ["fault", "what a run says", "what is served meanwhile", "the run after it is mended"], rows
    )
    times = table(
        [
            "lifetime",
            "when it is due, by",
            "at",
            "then left",
            "left at the latest run of the timer",
        ],
        renewals,
    )
    today = datetime.datetime.now(datetime.UTC)
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"""# Certificates while something fails

Made by `.venv/bin/python tests/proof/certificates.py --write`. nginx, the certbot that the role
locks and Pebble on the loopback. Another kind of key is wanted, so that the authority has to be
asked; meanwhile a client looks at what is served five times a second, and trusts Pebble's roots
alone.

{faults}

## When certbot renews

`certbot renew` with the time moved, to a hundredth of the lifetime. The timer runs twice a day,
each host at hours of its own, so that half a day passes between two runs.

{times}

{today:%Y-%m-%d}, {os.cpu_count()} cores, {system}.
"""


if __name__ == "__main__":
    sys.exit(main())
