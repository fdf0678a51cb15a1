"""What programs of others find about the nginx role. Writes docs/proof/nginx-checks.md.

    .venv/bin/python tests/proof/nginx_checks.py [PROGRAM ...]

With names of programs, such as `testssl.sh`, only these run, and what the page has of the others
stays. A host of each system has the role's defaults, two sites, and a certificate that an authority
made here has signed. sslyze runs on this machine, from an environment of its own; testssl.sh,
h2load, slowhttptest and curl run on a third host, where they are installed from Debian's packages.
MDN's HTTP Observatory (`observatory`) needs Node.js and npm on this machine, and is left out
without them. With KEEP=1 the hosts stay. What runs in `make test` already is listed at the end of
the table.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nginx_restart import PATIENCE_SECONDS, PORT, SITE, SYSTEMS, provision, request, root
from run_cost import PROJECT, hosts, ssh_to

REPORT = PROJECT / "docs" / "proof" / "nginx-checks.md"
TOOLS = Path(__file__).with_name("tools")
SCOPE = "proof-nginx-checks"
PACKAGES = "testssl.sh slowhttptest nghttp2-client curl"
OBSERVATORY = "@mdn/mdn-http-observatory@1.4.8"
CERTIFICATE_DAYS = 90
# Connections of an attack, how many of them are opened in a second, and for how long it lasts.
ATTACK_SECONDS = 25
ATTACK = f"-c 300 -r 100 -l {ATTACK_SECONDS}"
# Slow to send headers, to send a body, and to read a file.
LARGE_BYTES = 10_000_000
ATTACKS = {
    "headers": ("-H -i 5", "/"),
    "body": ("-B -i 5 -s 8192", "/"),
    "read": ("-X -w 512 -y 1024 -n 5 -z 32", "/downloads/large.csv"),
}
# An honest client asks for so long before an attack and during it, in turns: the speed of a machine
# drifts. With fewer answers of each kind, what 99 of 100 took is chance.
ROUNDS, ASKING_SECONDS, OPENING_SECONDS = 3, 12, 6
FEWEST = 500
SLOWER = 2.0

# What testssl.sh calls as it should be.
GOOD = {"OK", "INFO"}
# Findings that stay, and why. One that is not here fails the proof.
REASONS = {
    "certificate_path_validation": "the authority was made for this test",
    "cert_revocation": "the authority was made for this test",
    "engine_problem": "GOST's suites are none of ours",
    "BREACH": "[decision 75](../decisions/0075-what-others-find-about-tls.md)",
}
IN_MAKE_TEST = (
    ("gixy-ng, over every variant of the configuration", "`tests/unit/roles/test_nginx.py`"),
    ("crossplane: every directive's place and arguments", "`tests/unit/roles/test_nginx.py`"),
    ("raw requests over HTTP/1, some fifty", "`molecule/nginx/tests/refusals.py`, on both systems"),
    ("testssl.sh: protocols, preferences, known attacks", "`tests/unit/roles/test_nginx_tls.py`"),
    ("h2: HTTP/2, well-formed and not", "`tests/unit/roles/test_nginx_refusals.py`"),
    ("dev-sec's nginx baseline, each control", "`molecule/nginx/tests/test_baseline.py`"),
)

# How the rows of each program begin.
PROGRAMS = {
    "sslyze": "sslyze ",
    "observatory": "MDN HTTP Observatory",
    "h2load": "h2load,",
    "curl": "curl,",
    "testssl.sh": "testssl.sh ",
    "slowhttptest": "slowhttptest,",
}

Row = tuple[str, str, str, str]


def signed(folder: Path) -> tuple[Path, Path, Path]:
    """An authority's certificate, and a certificate and key that it signed, for the site."""
    ca, ca_key, chain, key, csr, names = (
        folder / name for name in ("ca.pem", "ca.key", "chain.pem", "key.pem", "csr", "names")
    )
    names.write_text(f"subjectAltName=DNS:{SITE},DNS:www.{SITE}\nextendedKeyUsage=serverAuth\n")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    commands: tuple[list[str | Path], ...] = (
        ["req", "-x509", *curve, "-keyout", ca_key, "-out", ca, "-subj", "/CN=proof"],
        ["req", *curve, "-keyout", key, "-out", csr, "-subj", f"/CN={SITE}"],
        [
            *("x509", "-req", "-in", csr, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial"),
            *("-out", chain, "-days", str(CERTIFICATE_DAYS), "-extfile", names),
        ],
    )
    for command in commands:
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return ca, chain, key


def on(host: Mapping[str, Any], command: str) -> str:
    """What a command says on a host, whatever comes of it."""
    done = subprocess.run(
        [*ssh_to(host), "sudo sh -s"], input=command, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def by_sslyze(system: str, address: str, ca: Path) -> list[Row]:
    """Compared with Mozilla's intermediate profile, as sslyze has it."""
    place = PROJECT / ".cache" / "proof" / "checks"
    if not (place / "bin" / "sslyze").exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run(
            [
                *(Path(sys.executable).with_name("uv"), "pip", "sync", "--quiet"),
                *("--require-hashes", "--python", place / "bin" / "python"),
                TOOLS / "requirements.txt",
            ],
            check=True,
            env={**os.environ, "UV_SYSTEM_CERTS": "true"},
        )
    said = subprocess.run(
        [
            *(place / "bin" / "sslyze", "--mozilla_config", "intermediate", "--sni", SITE),
            *("--certinfo_ca_file", ca, f"{address}:{PORT}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.partition("COMPLIANCE AGAINST TLS CONFIGURATION")[2]
    found = re.findall(r"(?m)^ +\* (\w+): (.+)$", said)
    if not found and "Compliant" not in said:
        raise SystemExit(f"sslyze: {said}")
    name = f"sslyze 6.3.1, Mozilla intermediate, {system}"
    return [(name, each, text, REASONS.get(each, "")) for each, text in found] or [
        (name, "none", "", "")
    ]


def by_testssl(system: str, address: str, checker: Mapping[str, Any], ca: Path) -> list[Row]:
    """Everything that it knows, and what of it is not as it should be."""
    folder = f"/tmp/testssl-{system}"
    on(
        checker,
        f"rm -rf {folder}; mkdir {folder}; cat >{folder}/ca.pem <<'END'\n{ca.read_text()}END",
    )
    on(
        checker,
        f"testssl --quiet --color 0 --warnings batch --nodns none --ip {address} "
        f"--add-ca {folder}/ca.pem --jsonfile {folder}/found.json https://{SITE}:{PORT}/ "
        f">{folder}/log 2>&1",
    )
    told = json.loads(on(checker, f"cat {folder}/found.json"))
    version = on(checker, "dpkg-query --show --showformat '${Version}' testssl.sh")
    name = f"testssl.sh {version}, {system}"
    bad = {each["id"].split()[0]: each for each in told if each["severity"] not in GOOD}
    rows = [
        (name, each["id"], f"{each['severity']}: {each['finding']}", REASONS.get(key, ""))
        for key, each in bad.items()
    ]
    return [*rows, (name, "none", f"{len(told) - len(bad)} other checks found nothing", "")]


def by_observatory(system: str, address: str, ca: Path) -> list[Row]:
    """The rules of the HTTP Observatory, run by the package's own scanner."""
    name = f"MDN HTTP Observatory, {system}"
    if not shutil.which("npm"):
        return [(name, "not run", "there is no npm on this machine", "it is optional")]
    place = PROJECT / ".cache" / "proof" / "observatory"
    package = place / "node_modules" / "@mdn" / "mdn-http-observatory"
    if not package.exists():
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", OBSERVATORY],
            cwd=place,
            check=True,
            capture_output=True,
        )
    # What its installation fetches: the browsers' list of sites, on which a test's is not.
    (package / "conf" / "hsts-preload.json").write_text("{}")
    # It asks by the name alone, which leads to the host here.
    lookup = place / "lookup.cjs"
    lookup.write_text(
        'const dns = require("dns");\n'
        "dns.lookup = (name, options, done) => {\n"
        '  if (typeof options === "function") [done, options] = [options, {}];\n'
        "  const found = { address: process.env.PROOF_ADDRESS, family: 4 };\n"
        "  return options.all ? done(null, [found]) : done(null, found.address, 4);\n"
        "};\n"
    )
    done = subprocess.run(
        ["node", "--require", lookup, package / "src" / "scan.js", SITE],
        env={**os.environ, "PROOF_ADDRESS": address, "NODE_EXTRA_CA_CERTS": str(ca)},
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)
    scan = told["scan"]
    bad = [
        (name, key, each["result"], REASONS.get(key, ""))
        for key, each in told["tests"].items()
        if not each["pass"]
    ]
    passed = f"{scan['testsPassed']} of {scan['testsQuantity']} rules passed"
    grade = f"grade {scan['grade']}, {scan['score']} points, {passed}"
    return bad or [(name, "none", grade, "")]


def by_h2load(system: str, checker: Mapping[str, Any]) -> list[Row]:
    """Many streams on few connections."""
    said = on(checker, f"h2load -n 5000 -c 20 -m 20 https://{SITE}:{PORT}/static/page.css")
    name = f"h2load, 5000 requests, 20 connections, {system}"
    good = "5000 succeeded, 0 failed, 0 errored, 0 timeout" in said
    agreed = "Application protocol: h2" in said
    if good and agreed:
        return [(name, "none", "HTTP/2 agreed, all answered with 200", "")]
    return [(name, "requests failed", said[-300:].replace("\n", " "), "")]


def by_curl(system: str, checker: Mapping[str, Any]) -> list[Row]:
    """HTTP/3, where the role has been told to speak it."""
    said = on(
        checker,
        "curl --silent --insecure --http3-only --max-time 20 --output /dev/null "
        f"--write-out '%{{http_version}} %{{http_code}}' https://{SITE}:{PORT}/",
    )
    wanted = system == "debian13"
    name = f"curl, HTTP/3 {'wanted' if wanted else 'not to be had'}, {system}"
    good = said.startswith("3 200") is wanted
    return [(name, "none" if good else "wrong", f"answered `{said.strip()[:60]}`", "")]


def ask(address: str) -> list[float]:
    """Seconds that each answer took, of a client that asks one after the other."""
    # Without the system's authorities: reading those takes longer than the connection.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    seconds = []
    end = time.monotonic() + ASKING_SECONDS
    while time.monotonic() < end:
        begun = time.monotonic()
        plain = socket.create_connection((address, PORT), PATIENCE_SECONDS)
        with context.wrap_socket(plain, server_hostname=SITE) as client:
            client.sendall(request("GET /static/page.css", "Connection: close"))
            if client.recv(12) != b"HTTP/1.1 200":
                raise SystemExit(f"{address} did not answer an honest client")
        seconds.append(time.monotonic() - begun)
    return seconds


def p99(seconds: list[float]) -> float:
    """What 99 of 100 took at most."""
    return sorted(seconds)[int(len(seconds) * 0.99) - 1]


def connections(host: Mapping[str, Any], client: str) -> int:
    """How many connections to the site a client has open."""
    # As /proc/net/tcp writes an address: in hexadecimal, backwards.
    remote = "".join(f"{int(each):02X}" for each in reversed(client.split(".")))
    pattern = f":{PORT:04X} {remote}:.... 01 "
    return int(on(host, f"cat /proc/net/tcp /proc/net/tcp6 | grep -c '{pattern}'") or 0)


def by_slowhttptest(system: str, host: Mapping[str, Any], checker: Mapping[str, Any]) -> list[Row]:
    """What an honest client notices of clients that send or read slowly."""
    rows = []
    for attack, (options, path) in ATTACKS.items():
        before: list[float] = []
        during: list[float] = []
        held = []
        command = f"slowhttptest {ATTACK} {options} -u https://{SITE}:{PORT}{path}"
        for _ in range(ROUNDS):
            before += ask(host["address"])
            attacker = threading.Thread(target=on, args=(checker, command))
            attacker.start()
            time.sleep(OPENING_SECONDS)
            held.append(connections(host, checker["address"]))
            during += ask(host["address"])
            attacker.join()
        if min(len(before), len(during)) < FEWEST:
            raise SystemExit(f"too few answers to judge by: {len(before)} and {len(during)}")
        ratio = p99(during) / p99(before)
        text = (
            f"p99 of an honest client: {p99(before) * 1000:.0f} ms before, "
            f"{p99(during) * 1000:.0f} ms during, {ratio:.1f} times as long; "
            f"{len(before)} and {len(during)} answers; "
            f"connections of the attack: {', '.join(map(str, held))}"
        )
        name = f"slowhttptest, slow {attack}, 300 connections, {system}"
        rows.append((name, "none" if ratio <= SLOWER else "slower", text, ""))
    return rows


def said(rows: list[Row]) -> list[Row]:
    """The same rows, shown meanwhile."""
    print(*rows, sep="\n", flush=True)
    return rows


def prepare(host: Mapping[str, Any], checker: Mapping[str, Any], chain: Path, key: Path) -> None:
    """Have a host serve the certificate and a file that takes a while, and the checker find it."""
    for source, name in ((chain, "fullchain.pem"), (key, "privkey.pem")):
        root(host, f"cat >/etc/ssl/sites/toll/{name} <<'END'\n{source.read_text()}END\n")
    root(host, f"head -c {LARGE_BYTES} /dev/zero >/srv/echo/downloads/large.csv")
    root(host, "systemctl reload nginx.service")
    root(
        checker,
        f"sed '/{SITE}/d' /etc/hosts >/tmp/hosts; cat /tmp/hosts >/etc/hosts; "
        f"echo '{host['address']} {SITE}' >>/etc/hosts",
    )


def measured(wanted: Sequence[str]) -> list[Row]:
    """What these programs find, on a host of each system."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        ca, chain, key = signed(Path(folder))
        try:
            members = {
                system: hosts("up", f"checked-{system}", "--image", system, "--scope", SCOPE)
                for system in SYSTEMS
            }
            checker = hosts("up", "checks-client", "--image", "debian13", "--scope", SCOPE)
            provision(members, Path(folder), {"debian13": {"nginx_http3": True}})
            install = "DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends"
            root(checker, f"apt-get -qq update; {install} -y {PACKAGES}")
            for system, host in members.items():
                prepare(host, checker, chain, key)
                address = host["address"]
                checks: dict[str, Callable[[], list[Row]]] = {
                    "sslyze": partial(by_sslyze, system, address, ca),
                    "observatory": partial(by_observatory, system, address, ca),
                    "h2load": partial(by_h2load, system, checker),
                    "curl": partial(by_curl, system, checker),
                    "testssl.sh": partial(by_testssl, system, address, checker, ca),
                    "slowhttptest": partial(by_slowhttptest, system, host, checker),
                }
                for program in wanted:
                    rows += said(checks[program]())
        finally:
            if not os.environ.get("KEEP"):
                hosts("down", "--scope", SCOPE)
    return rows


def main() -> None:
    os.environ["ANSIBLE_CONFIG"] = str(PROJECT / "ansible.cfg")
    wanted = sys.argv[1:] or list(PROGRAMS)
    if unknown := set(wanted) - set(PROGRAMS):
        raise SystemExit(f"no such program: {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
    rows = measured(wanted)
    kept = REPORT.read_text() if len(wanted) < len(PROGRAMS) else ""
    REPORT.write_text(report(rows, wanted, kept))
    if bad := [row for row in rows if row[1] not in ("none", "not run") and not row[3]]:
        raise SystemExit(f"findings without a reason: {bad}")


def report(rows: list[Row], wanted: Sequence[str], page: str) -> str:
    """The table: these rows, and those that a page has of other programs."""
    today = time.strftime("%Y-%m-%d")
    lines: dict[str, list[str]] = {program: [] for program in PROGRAMS}
    for line in page.splitlines():
        for program, begins in PROGRAMS.items():
            if program not in wanted and line.startswith(f"| {begins}"):
                lines[program].append(line)
    for row in rows:
        cells = " | ".join(cell.replace("|", "/").strip() for cell in (*row, today))
        lines[next(key for key, each in PROGRAMS.items() if row[0].startswith(each))].append(
            f"| {cells} |"
        )
    text = (
        "# What programs of others find about nginx\n\n"
        "Made by `.venv/bin/python tests/proof/nginx_checks.py`, on hosts with the role's\n"
        "defaults and a certificate of an authority that was made for it. A finding without a\n"
        "reason fails it. An honest client's answers are compared with those of the same run\n"
        "without an attack, in turns.\n\n"
        "| program | finding | it says | why it stays | on |\n| --- | --- | --- | --- | --- |\n"
    )
    text += "".join(f"{line}\n" for each in lines.values() for line in each)
    for program, place in IN_MAKE_TEST:
        text += f"| {program} | none | in `make test`: {place} | | |\n"
    return text + f"\n{os.cpu_count()} cores, hosts in containers.\n"


if __name__ == "__main__":
    main()
