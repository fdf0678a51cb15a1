"""What programs of others find about the nginx role. Writes docs/proof/nginx-checks.md.

    .venv/bin/python tests/proof/nginx_checks.py

A host of each system has the role's defaults, two sites, and a certificate that an authority made
here has signed. sslyze runs on this machine, from an environment of its own; testssl.sh, h2load,
slowhttptest and curl run on a third host, where they are installed from Debian's packages. MDN's
HTTP Observatory needs Node.js and npm on this machine, and is left out without them. With KEEP=1
the hosts stay. What runs in `make test` already is listed at the end of the table.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nginx_restart import PORT, SITE, SYSTEMS, connect, provision, request, root
from run_cost import PROJECT, hosts, ssh_to

REPORT = PROJECT / "docs" / "proof" / "nginx-checks.md"
TOOLS = Path(__file__).with_name("tools")
SCOPE = "proof-nginx-checks"
PACKAGES = "testssl.sh slowhttptest nghttp2-client curl"
OBSERVATORY = "@mdn/mdn-http-observatory@1.4.8"
CERTIFICATE_DAYS = 90
# Connections of an attack, how many of them are opened in a second, and for how long it lasts.
ATTACK = "-c 300 -r 100 -l 20"
ATTACKS = {"headers": "-H -i 5", "body": "-B -i 5 -s 8192", "read": "-X -w 1 -y 2 -n 5 -z 1"}
ASKED = 200
SLOWER = 2.0

# Findings that stay, and why. One that is not here fails the proof.
REASONS = {
    "certificate_path_validation": "the authority was made for this test",
}
IN_MAKE_TEST = (
    ("gixy-ng, over every variant of the configuration", "`tests/unit/roles/test_nginx.py`"),
    ("crossplane: every directive's place and arguments", "`tests/unit/roles/test_nginx.py`"),
    ("raw requests over HTTP/1, some fifty", "`molecule/nginx/tests/refusals.py`, on both systems"),
    ("h2: HTTP/2, well-formed and not", "`tests/unit/roles/test_nginx_refusals.py`"),
    ("dev-sec's nginx baseline, each control", "`molecule/nginx/tests/test_baseline.py`"),
)

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


def by_testssl(system: str, address: str, checker: Mapping[str, Any]) -> list[Row]:
    """Everything that it calls worse than informative."""
    output = f"/tmp/{system}.json"
    on(
        checker,
        f"rm -f {output}; testssl --quiet --color 0 --nodns none --ip {address} --severity LOW "
        f"--jsonfile {output} https://{SITE}:{PORT} >/tmp/{system}.log 2>&1",
    )
    told = json.loads(on(checker, f"cat {output}"))
    name = f"testssl.sh, {system}"
    found = {each["id"].split()[0]: each["finding"] for each in told}
    rows = [(name, each, text, REASONS.get(each, "")) for each, text in found.items()]
    return rows or [(name, "none", "", "")]


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


def p99(address: str) -> float:
    """Seconds within which 99 of 100 answers came to a client that asks one after the other."""
    seconds = []
    for _ in range(ASKED):
        begun = time.monotonic()
        with connect(address) as client:
            client.sendall(request("GET /static/page.css", "Connection: close"))
            if client.recv(12) != b"HTTP/1.1 200":
                raise SystemExit(f"{address} did not answer an honest client")
        seconds.append(time.monotonic() - begun)
    return sorted(seconds)[int(ASKED * 0.99) - 1]


def by_slowhttptest(system: str, address: str, checker: Mapping[str, Any]) -> list[Row]:
    """What an honest client notices of clients that send or read slowly."""
    rows = []
    for attack, options in ATTACKS.items():
        before = p99(address)
        command = f"slowhttptest {ATTACK} {options} -u https://{SITE}:{PORT}/static/page.css"
        attacker = threading.Thread(target=on, args=(checker, command))
        attacker.start()
        time.sleep(5)
        during = p99(address)
        attacker.join()
        name = f"slowhttptest, slow {attack}, 300 connections, {system}"
        text = (
            f"p99 of an honest client: {before * 1000:.0f} ms before, {during * 1000:.0f} ms during"
        )
        rows.append((name, "none" if during <= SLOWER * before else "slower", text, ""))
    return rows


def said(rows: list[Row]) -> list[Row]:
    """The same rows, shown meanwhile."""
    print(*rows, sep="\n", flush=True)
    return rows


def main() -> None:
    os.environ["ANSIBLE_CONFIG"] = str(PROJECT / "ansible.cfg")
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
            on(
                checker,
                f"apt-get -qq update; DEBIAN_FRONTEND=noninteractive {install} -y {PACKAGES}",
            )
            for system, host in members.items():
                address = host["address"]
                for source, name in ((chain, "fullchain.pem"), (key, "privkey.pem")):
                    text = source.read_text()
                    root(host, f"cat >/etc/ssl/sites/toll/{name} <<'END'\n{text}END\n")
                root(host, "systemctl reload nginx.service")
                root(
                    checker,
                    f"sed '/{SITE}/d' /etc/hosts >/tmp/hosts; cat /tmp/hosts >/etc/hosts; "
                    f"echo '{address} {SITE}' >>/etc/hosts",
                )
                checks: tuple[Callable[[], list[Row]], ...] = (
                    partial(by_sslyze, system, address, ca),
                    partial(by_observatory, system, address, ca),
                    partial(by_h2load, system, checker),
                    partial(by_curl, system, checker),
                    partial(by_slowhttptest, system, address, checker),
                )
                for check in checks:
                    rows += said(check())
            # The slowest of them.
            for system, host in members.items():
                rows += said(by_testssl(system, host["address"], checker))
        finally:
            if not os.environ.get("KEEP"):
                hosts("down", "--scope", SCOPE)
    REPORT.write_text(report(rows))
    if bad := [row for row in rows if row[1] not in ("none", "not run") and not row[3]]:
        raise SystemExit(f"findings without a reason: {bad}")


def report(rows: list[Row]) -> str:
    """The table."""
    text = (
        "# What programs of others find about nginx\n\n"
        "Made by `.venv/bin/python tests/proof/nginx_checks.py`, on hosts with the role's\n"
        "defaults and a certificate of an authority that was made for it. A finding without a\n"
        "reason fails it.\n\n"
        "| program | finding | it says | why it stays |\n| --- | --- | --- | --- |\n"
    )
    for row in rows:
        text += f"| {' | '.join(cell.replace('|', '/').strip() for cell in row)} |\n"
    for program, place in IN_MAKE_TEST:
        text += f"| {program} | none | in `make test`: {place} | |\n"
    return text + f"\n{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, hosts in containers.\n"


if __name__ == "__main__":
    main()
