"""The certbot role's files, rendered for every family; its units as systemd reads them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.wsgi.host.plugins.module_utils.apphost import seal
from ansible_collections.wsgi.host.plugins.module_utils.apphost.certificates import (
    rehearsal,
    settings,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.certbot import certbot_argv
from ansible_collections.wsgi.host.plugins.module_utils.certificates.lineages import (
    otherwise_proven,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import Lineage, Wanted
from conftest import trusted

from . import preflight as preflights
from .preflight import Case, preflight
from .render import FAMILIES, ROLES, evaluate, render

TEMPLATES = ROLES / "certbot" / "templates"
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "changed": {
        "certbot_install": "package",
        "certbot_ca_file": "/control/authority.pem",
        "certbot_https_proxy": "http://proxy.example.org:3128",
        "certbot_challenge_directory": "/srv/challenges",
        "certbot_renewal_calendar": "*-*-* 03:17:00",
        "certbot_renewal_jitter_seconds": 600,
        "certbot_reload_argv": ["systemctl", "reload", "it's.service"],
        "certbot_rehearsal_calendar": "*-*-01 04:00:00 Europe/Berlin",
        "certbot_rehearsal_jitter_seconds": 0,
    },
}


UNITS = (
    *("certbot.service", "certbot.timer"),
    *("certificates-rehearsal.service", "certificates-rehearsal.timer"),
    *("certificates-watch.service", "certificates-watch.timer"),
)


def unit_text(unit: str, family: str, **variables: Any) -> str:
    """A unit as the role writes it; what runs certbot shares one template."""
    name = unit.partition(".")[0]
    for service in evaluate("certbot", "__certbot_services", family, **variables):
        if unit == f"{service['name']}.service":
            return render("certbot", "certbot.service.j2", family, unit=service, **variables)
    return render("certbot", f"{name}.{unit.partition('.')[2]}.j2", family, **variables)


def write_units(folder: Path, family: str, **variables: Any) -> list[str]:
    paths = []
    for unit in UNITS:
        path = folder / unit
        path.write_text(unit_text(unit, family, **variables))
        paths.append(str(path))
    return paths


def verify(paths: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_systemd_accepts_the_units(tmp_path: Path, family: str, variant: str) -> None:
    """A unit with a line that systemd does not know runs without what the line meant."""
    done = verify(write_units(tmp_path, family, **VARIANTS[variant]))
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) not in done.stderr, done.stderr


CHALLENGE = """
authenticator: dns-invented
arguments: [--dns-invented-credentials, /etc/invented.ini]
settings: {dns_invented_credentials: /etc/invented.ini}
wildcards: true
"""


def test_a_challenge_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else has to hear of one: not the rules, the unit, the module or certbot's command."""
    monkeypatch.setattr(preflights, "ROLES", tmp_path)
    shutil.copytree(ROLES / "certbot", tmp_path / "certbot")
    (tmp_path / "certbot/challenges/dns-invented.yml.j2").write_text(CHALLENGE)
    chosen = {
        "role_path": str(tmp_path / "certbot"),
        "certbot_challenge": "dns-invented",
        "certbot_certificates": [{"name": "shop", "domains": ["*.shop.dev", "shop.dev"]}],
    }
    assert preflights.check("certbot", trusted(chosen)) == ""
    unit = unit_text("certbot.service", "Debian", **chosen)
    writes = re.findall(r"^ReadWritePaths=(.*?) *$", unit, re.MULTILINE)
    assert writes == ["/etc/letsencrypt", "-/var/lib/application-metrics"]
    [task] = yaml.safe_load((ROLES / "certbot/tasks/certificate.yml").read_text())
    expression = task["wsgi.host.certificate"]["challenge"].strip("{} ")
    told = evaluate("certbot", expression, "Debian", **chosen)
    assert told == {
        "directory": "",
        "programs": [],
        **{k: v for k, v in yaml.safe_load(CHALLENGE).items() if k != "wildcards"},
    }
    settings = {"authenticator": "dns-invented", "dns_invented_credentials": "/etc/invented.ini"}
    assert otherwise_proven(Lineage(settings=settings), ["shop.dev"], told) == []
    settings["dns_invented_credentials"] = "/etc/other.ini"
    assert otherwise_proven(Lineage(settings=settings), ["shop.dev"], told) == [
        "it would be renewed with dns_invented_credentials = /etc/other.ini, not /etc/invented.ini"
    ]
    wanted = Wanted(name="shop", domains=["*.shop.dev"], link=tmp_path / "shop")
    params = {
        **{"challenge": told, "certbot": "certbot", "email": "", "key_type": "ecdsa-p256"},
        **{"configuration_directory": "/etc/letsencrypt", "directory_url": "https://a.dev/d"},
        **{"account_file": "", "profile": "", "profile_required": True},
    }
    argv = certbot_argv(wanted, "shop", params)
    at = argv.index("--authenticator")
    assert argv[at : at + 4] == ["--authenticator", "dns-invented", *told["arguments"]]
    assert not [word for word in argv if "webroot" in word]


def test_credentials_are_in_a_file_of_roots() -> None:
    """The tree neither shows it nor lets others read it, and only one challenge brings it."""
    chosen = {
        "certbot_challenge": "dns-rfc2136",
        "certbot_dns_credentials": {"server": "192.0.2.53", "name": "k.", "secret": "c2VjcmV0"},
        "certbot_account_binding": {"kid": "kid-1", "hmac_key": "a2V5"},
    }
    text = render("certbot", "dns-credentials.ini.j2", "Debian", **chosen)
    assert re.findall("^dns_.*", text, re.MULTILINE) == [
        'dns_rfc2136_algorithm = "HMAC-SHA256"',
        'dns_rfc2136_server = "192.0.2.53"',
        'dns_rfc2136_name = "k."',
        'dns_rfc2136_secret = "c2VjcmV0"',
    ]
    text = render("certbot", "account-binding.ini.j2", "Debian", **chosen)
    assert re.findall("^eab.*", text, re.MULTILINE) == ["eab-kid = kid-1", "eab-hmac-key = a2V5"]
    files = evaluate("certbot", "__certbot_secrets", "Debian", **chosen)
    assert [(file["mode"], file["secret"]) for file in files] == [("0600", True)] * 2
    assert evaluate("certbot", "__certbot_secrets", "Debian") == []
    # What the module and its log are told has none.
    assert "c2VjcmV0" not in str(evaluate("certbot", "__certbot_challenge", "Debian", **chosen))


def test_the_operators_program_is_told_the_record(tmp_path: Path) -> None:
    """certbot puts its words through a shell; the arguments are the operator's to the letter."""
    program = tmp_path / "a program"
    program.write_text('#!/bin/sh\necho "$ACME_RECORD" "$CERTBOT_VALIDATION" "$@"\n')
    program.chmod(0o755)
    argv = [str(program), "it's", "$HOME"]
    chosen = {"certbot_challenge": "dns-hook", "certbot_dns_hook_argv": argv}
    hook = tmp_path / "hook"
    hook.write_text(render("certbot", "certbot-dns-hook.j2", "Debian", **chosen))
    hook.chmod(0o755)
    told = {"CERTBOT_DOMAIN": "shop.example.org", "CERTBOT_VALIDATION": "text", "HOME": "/root"}
    done = subprocess.run([hook, "add"], env=told, capture_output=True, text=True, check=True)
    assert done.stdout == "_acme-challenge.shop.example.org text it's $HOME add\n"
    assert evaluate("certbot", "__certbot_challenge.programs", "Debian", **chosen) == argv[:1]


def test_a_wrong_calendar_does_not_reach_the_host(tmp_path: Path) -> None:
    """The tree's check refuses it; systemd alone would ignore the line and never renew."""
    done = verify(write_units(tmp_path, "Debian", certbot_renewal_calendar="twice a day"))
    assert done.returncode != 0
    assert "certbot.timer" in done.stderr


@pytest.mark.parametrize("broken", [None, *UNITS])
def test_the_trees_check_refuses_a_unit_that_cannot_run(tmp_path: Path, broken: str | None) -> None:
    """The very commands of the task, over a staged tree: none of the units is left out."""
    *_, task = yaml.safe_load((ROLES / "certbot" / "tasks" / "configure.yml").read_text())
    units = tmp_path / "etc" / "systemd" / "system"
    units.mkdir(parents=True)
    write_units(units, "Debian")
    if broken:
        text = (units / broken).read_text()
        needed = "ExecStart=" if broken.endswith(".service") else "On(Calendar|BootSec)="
        (units / broken).write_text(re.sub(rf"^{needed}.*$", "", text, flags=re.MULTILINE))
    checks = task["wsgi.host.config_tree"]["checks"]
    done = [
        subprocess.run(
            [part.replace("{stage}", str(tmp_path)) for part in check["argv"]],
            capture_output=True,
            check=False,
            timeout=60,
        ).returncode
        for check in checks
    ]
    assert any(done) is (broken is not None)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("script", ["certbot.j2", "reload-web-server.j2"])
def test_the_scripts_are_shell(tmp_path: Path, script: str, family: str, variant: str) -> None:
    text = render("certbot", script, family, **VARIANTS[variant])
    done = subprocess.run(
        ["/bin/sh", "-n"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert text.startswith("#!/bin/sh\n")


class Script:
    """A rendered script with its paths moved below a folder."""

    def __init__(self, folder: Path, template: str, **variables: Any) -> None:
        self.folder = folder
        moved = {
            "__certbot_runtime_directory": str(folder / "run"),
            "__certbot_reload_marker": str(folder / "run" / "reload-pending"),
            "__certbot_program": str(folder / "program"),
            "__certbot_interpreter": str(folder / "python"),
            "__certbot_authority_file": str(folder / "authority.pem"),
            "__certbot_certificates_command": str(folder / "certificates"),
        }
        self.path = folder / "script"
        self.path.write_text(render("certbot", template, "Debian", **{**moved, **variables}))
        self.path.chmod(0o755)

    def program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def __call__(self, *arguments: str, **told: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(self.path), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env={"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", **told},
        )

    @property
    def marker(self) -> Path:
        return self.folder / "run" / "reload-pending"


def test_the_wrapper_hands_on_its_arguments(tmp_path: Path) -> None:
    script = Script(tmp_path, "certbot.j2")
    script.program("program", 'printf "%s|" "$@"; echo "${REQUESTS_CA_BUNDLE-}${HTTPS_PROXY-}"')
    done = script("renew", "--cert-name", "two words")
    assert done.stdout == "renew|--cert-name|two words|\n"


def test_the_wrapper_adds_the_private_authority_to_the_public_ones(tmp_path: Path) -> None:
    """REQUESTS_CA_BUNDLE by itself would replace them, and other authorities would fail."""
    public = tmp_path / "public.pem"
    # Without a newline at the end, two certificates would run into one line.
    public.write_text("PUBLIC")
    (tmp_path / "authority.pem").write_text("PRIVATE\n")
    script = Script(tmp_path, "certbot.j2", certbot_ca_file="/control/authority.pem")
    script.program("program", 'cat "$REQUESTS_CA_BUNDLE"')
    # Root's part of the script, whoever runs the tests.
    script.program("bin/id", "echo 0")
    script.program("python", f"echo {public}")
    assert script().stdout == "PUBLIC\nPRIVATE\n"
    # An update of the public ones counts, and nothing is left behind.
    public.write_text("NEWER\n")
    assert "NEWER" in script().stdout
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["authorities.pem"]


def test_the_wrapper_uses_the_proxy(tmp_path: Path) -> None:
    proxy = "http://proxy.example.org:3128"
    script = Script(tmp_path, "certbot.j2", certbot_https_proxy=proxy)
    script.program("program", 'echo "$HTTPS_PROXY"')
    assert script().stdout == f"{proxy}\n"


def test_the_hook_reloads_and_forgets(tmp_path: Path) -> None:
    script = Script(tmp_path, "reload-web-server.j2", certbot_reload_argv=["echo", "it's done"])
    script.program("certificates", "exit 0")
    done = script()
    assert (done.returncode, done.stdout) == (0, "it's done\n")
    assert not script.marker.exists()


def test_a_reload_that_fails_is_remembered_and_tried_again(tmp_path: Path) -> None:
    """certbot counts a renewal as a success whatever its hook said."""
    switch = tmp_path / "works"
    script = Script(
        tmp_path, "reload-web-server.j2", certbot_reload_argv=["test", "-e", str(switch)]
    )
    script.program("certificates", "exit 0")
    assert script("--pending").returncode == 0, "nothing is pending yet"
    assert script().returncode != 0
    assert script.marker.exists()
    assert script("--pending").returncode != 0, "the unit must fail as long as it fails"
    switch.touch()
    assert script("--pending").returncode == 0
    assert not script.marker.exists()


def test_a_web_server_that_shows_another_certificate_is_no_success(tmp_path: Path) -> None:
    """A reload can succeed and change nothing, and a renewal that nobody sees ends the site."""
    script = Script(tmp_path, "reload-web-server.j2", certbot_reload_argv=["true"])
    script.program(
        "certificates", 'test "$1 $2" = "compare /etc/certificates/watch.json" && exit 1'
    )
    assert script().returncode != 0
    assert script.marker.exists()
    assert script("--pending").returncode != 0
    script.program("certificates", "exit 0")
    assert script("--pending").returncode == 0
    assert not script.marker.exists()


def test_the_hook_leaves_a_run_of_the_playbook_alone(tmp_path: Path) -> None:
    """certbot runs it for `certonly` too, from 5.3 on, before the links lead to what is new."""
    script = Script(tmp_path, "reload-web-server.j2", certbot_reload_argv=["false"])
    assert script(CERTIFICATES_OF_A_RUN="yes").returncode == 0
    assert not script.marker.exists()


@pytest.mark.parametrize(
    ("variables", "trust"),
    [
        ({}, "system"),
        ({"certbot_directory_url": "https://acme-staging-v02.api.letsencrypt.org/dir"}, "chain"),
        ({"certbot_directory_url": "https://ca.home.test/dir"}, "chain"),
        ({"certbot_obtain": False}, "none"),
    ],
    ids=["public", "trial", "private", "self-signed"],
)
def test_what_is_watched(tmp_path: Path, variables: dict[str, Any], trust: str) -> None:
    """The program reads what the role writes: each certificate of both, by its own names."""
    given = {
        **variables,
        "certbot_certificates": CERTIFICATES,
        "certbot_watched": [
            {"name": "brought", "domains": ["brought.example.org"], "file": "/etc/ssl/b.pem"},
            {"name": "mail", "domains": ["mx.example.org"], "address": "127.0.0.1:465"},
        ],
    }
    path = tmp_path / "watch.json"
    path.write_text(json.dumps(evaluate("certbot", "__certbot_watch", "Debian", **given)))
    told = settings.read(path)
    own, brought, mail = told.entries
    assert own == settings.Entry(
        "shop",
        ("shop.example.org",),
        "127.0.0.1:443",
        "/etc/ssl/sites/shop/fullchain.pem",
        trust,
    )
    assert brought.trust == mail.trust == "system"
    assert (brought.address, brought.file) == ("127.0.0.1:443", "/etc/ssl/b.pem")
    assert (mail.address, mail.file) == ("127.0.0.1:465", "")
    assert told.percent == 20
    # The seal and the module look there too.
    assert str(told.state / rehearsal.VERDICT) == "/var/lib/certificates/rehearsal.json"
    assert '"var/lib/certificates" / rehearsal.VERDICT' in Path(seal.__file__).read_text()
    monitoring = yaml.safe_load((ROLES / "monitoring/vars/main.yml").read_text())
    assert str(told.metrics) == monitoring["__monitoring_textfiles"]


def test_the_programs_are_those_of_the_package() -> None:
    """Each module is there, as a link that leads to it."""
    package = Path(settings.__file__).parent
    shipped = {path.name: path.resolve() for path in TEMPLATES.glob("programs/certificates/*")}
    assert shipped == {path.name: path.resolve() for path in package.glob("*.py")}
    done = subprocess.run(
        ["python3", "-IB", str(TEMPLATES / "programs"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "{watch,compare,rehearse,forget}" in done.stdout


def test_the_hook_never_restarts() -> None:
    """A restart drops connections; a renewal is no reason for that."""
    for value in ROLES.joinpath("certbot").rglob("*.j2"):
        assert not re.search(r"systemctl\s+(try-)?restart", value.read_text())
    assert evaluate("certbot", "certbot_reload_argv", "Debian")[1] == "reload"


@pytest.mark.parametrize("family", FAMILIES)
def test_renewal_is_certbots_decision(family: str) -> None:
    """Lifetimes shrink from 90 to 45 days and less: no number of days may stand in a unit."""
    for unit in ("certbot.service", "certbot.timer"):
        assert not re.search(r"days|\b(30|60)\b", unit_text(unit, family))


def test_renewals_are_as_far_apart_as_the_calendar_says() -> None:
    """With another delay each time a day could pass, of the two that are left of six."""
    assert "\nFixedRandomDelay=true\n" in unit_text("certbot.timer", "Debian")


def test_a_renewal_waits_for_a_rehearsal_and_not_the_other_way_round() -> None:
    """certbot has one lock, and a renewal that meets it fails until the next run of the timer."""
    waits = "\nAfter=certificates-rehearsal.service\n"
    assert waits in unit_text("certbot.service", "Debian")
    rehearsal_unit = unit_text("certificates-rehearsal.service", "Debian")
    assert not re.search(r"^After=.*(certbot|certificates)", rehearsal_unit, re.MULTILINE)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_distributions_timers_are_known(family: str) -> None:
    """Exactly one renewer: a timer of ours, and every other name switched off."""
    others = evaluate("certbot", "__certbot_other_timers", family)
    assert "snap.certbot.renew.timer" in others
    assert "certbot.timer" not in others
    if family == "RedHat":
        assert "certbot-renew.timer" in others


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "/opt/certbot/current/bin/python"),
        ({"certbot_install": "package"}, "/usr/bin/python3"),
        ({"ansible_check_mode": True}, "/usr/bin/python3"),
        (
            {"ansible_check_mode": True, "__certbot_release": {"current": "abc"}},
            "/opt/certbot/current/bin/python",
        ),
    ],
    ids=["bundle", "package", "check on a bare host", "check later"],
)
def test_certificates_are_read_by_certbots_own_python(
    variables: dict[str, Any], expected: str
) -> None:
    facts = {"ansible_check_mode": False, "__certbot_release": {"current": None}}
    assert evaluate("certbot", "__certbot_python", "Debian", **{**facts, **variables}) == expected


CERTIFICATES = [{"name": "shop", "domains": ["shop.example.org"]}]
IN_ORDER = {"certificates": {"shop": {}}, "reload_pending": False, "pending": []}


@pytest.mark.parametrize(
    ("result", "obtain", "due"),
    [
        (IN_ORDER, True, False),
        ({**IN_ORDER, "pending": ["shop"]}, True, True),
        ({**IN_ORDER, "pending": ["shop"]}, False, False),
        ({**IN_ORDER, "reload_pending": True}, False, True),
        ({**IN_ORDER, "certificates": {"other": {}}}, True, True),
        ({"skipped": True}, True, True),
    ],
    ids=["in order", "missing", "not wanted", "reload", "another call's result", "skipped"],
)
def test_the_second_stage_costs_a_trip_only_when_due(
    result: dict[str, Any], obtain: bool, due: bool
) -> None:
    found = evaluate(
        "certbot",
        "__certbot_due",
        "Debian",
        __certbot_result=result,
        certbot_obtain=obtain,
        certbot_certificates=CERTIFICATES,
    )
    assert found is due


def test_the_lock_is_whole() -> None:
    """Every package pinned with hashes, and no host's name in the file."""
    lock = (ROLES / "certbot" / "files" / "requirements.txt").read_text()
    wanted = (ROLES / "certbot" / "files" / "requirements.in").read_text()
    pin = re.search(r"^certbot==\S+", wanted, re.MULTILINE)
    assert pin is not None
    assert pin[0] in lock
    entries = re.findall(r"^[a-z][^\n]*(?:\n    --hash[^\n]*)*", lock, re.MULTILINE)
    assert len(entries) > 10
    for entry in entries:
        assert "==" in entry.splitlines()[0]
        assert "--hash=sha256:" in entry
    assert "://" not in lock


# --- Guards ---------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "certbot_certificates": [{"name": "shop", "domains": ["shop.example.org"]}],
    "certbot_email": "ops@toll-app.dev",
    "certbot_ca_file": __file__,
}
CREDENTIALS = {"server": "192.0.2.53", "name": "certbot.", "secret": "bm90IGEgc2VjcmV0"}
RFC2136 = {"certbot_challenge": "dns-rfc2136", "certbot_dns_credentials": CREDENTIALS}
ADDRESS = {"certbot_certificates": [{"name": "shop", "domains": ["192.0.2.7"]}]}
# Each with what the message must say: the variable, what was found, and the remedy.
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a wildcard": (
        {"certbot_certificates": [{"name": "shop", "domains": ["*.example.org"]}]},
        "certbot_certificates has *.example.org, and the challenge http-01 cannot prove a "
        "wildcard: list each name by itself, or set certbot_challenge to one of the dns- "
        "challenges",
    ),
    "a challenge that nobody knows": (
        {"certbot_challenge": "dns-01"},
        'certbot_challenge ("dns-01") is not one of dns-hook, dns-rfc2136, http-01: use one of '
        "these",
    ),
    "no credentials": (
        {"certbot_challenge": "dns-rfc2136"},
        "certbot_dns_credentials has no server and no name and no secret, which the challenge "
        "dns-rfc2136 needs: add it from the vault",
    ),
    "a server's name": (
        {**RFC2136, "certbot_dns_credentials": {**CREDENTIALS, "server": "ns.example.org"}},
        "certbot_dns_credentials has a name where certbot takes an IP address only: write the "
        "address of the server, such as 192.0.2.53",
    ),
    "a quotation mark in a secret": (
        {**RFC2136, "certbot_dns_credentials": {**CREDENTIALS, "secret": 'a"7f3a'}},
        "certbot_dns_credentials has a value with a quotation mark, a backslash or %(: leave them",
    ),
    "a key with the plugin's prefix in front": (
        {**RFC2136, "certbot_dns_credentials": {**CREDENTIALS, "dns-rfc2136-port": 5353}},
        "certbot_dns_credentials has a key that is no setting of a plugin: use the names of its "
        "documentation without the prefix, such as server",
    ),
    "no program": (
        {"certbot_challenge": "dns-hook"},
        "certbot_dns_hook_argv does not start with the absolute path of a program, which the "
        "challenge dns-hook runs: name the program",
    ),
    "a program of the PATH": (
        {"certbot_challenge": "dns-hook", "certbot_dns_hook_argv": ["acme-record"]},
        "certbot_dns_hook_argv does not start with the absolute path of a program",
    ),
    "half a binding": (
        {"certbot_account_binding": {"kid": "kid-1"}},
        "certbot_account_binding lacks kid or hmac_key, or one of them has an invalid character: "
        "copy both exactly as the authority gave them",
    ),
    "a binding of two lines": (
        {"certbot_account_binding": {"kid": "kid-1", "hmac_key": "7f3a b"}},
        "certbot_account_binding lacks kid or hmac_key, or one of them has an invalid character",
    ),
    "an address by DNS": (
        {**RFC2136, **ADDRESS, "certbot_profile": "shortlived"},
        "certbot_certificates has 192.0.2.7, and the challenge dns-rfc2136 cannot prove an "
        "address: set certbot_challenge: http-01, or list a name in its place",
    ),
    "an address with the distribution's certbot": (
        {**ADDRESS, "certbot_install": "package"},
        "certbot_certificates has 192.0.2.7, and the distribution's certbot obtains no certificate "
        "for an address: set certbot_install: bundle, or list a name in its place",
    ),
    "an address without its profile": (
        ADDRESS,
        'certbot_profile ("") is not the profile under which Let\'s Encrypt issues certificates '
        "for an address such as 192.0.2.7: set certbot_profile: shortlived",
    ),
    "an address in another form": (
        {"certbot_certificates": [{"name": "shop", "domains": ["2001:DB8:0::1"]}]},
        'certbot_certificates[0].domains[0] is "2001:DB8:0::1", which is an address in another '
        "form: write 2001:db8::1",
    ),
    "a profile with the distribution's certbot": (
        {"certbot_profile": "tlsserver", "certbot_install": "package"},
        'certbot_profile ("tlsserver") may be unknown to the distribution\'s certbot: '
        "set certbot_install: bundle, or leave it empty",
    ),
    "one name twice": (
        {
            "certbot_certificates": [
                {"name": "shop", "domains": ["a.example.org"]},
                {"name": "Shop", "domains": ["b.example.org"]},
            ]
        },
        "certbot_certificates has two certificates with the same name, among shop, Shop: give each",
    ),
    "no domains": (
        {"certbot_certificates": [{"name": "shop", "domains": []}]},
        "certbot_certificates has no domains for shop: list its domains",
    ),
    "no domain": (
        {"certbot_certificates": [{"name": "shop", "domains": ["https://shop.example.org"]}]},
        'certbot_certificates[0].domains[0] is "https://shop.example.org", which starts with a ',
    ),
    "a path for a name": (
        {"certbot_certificates": [{"name": "../shop", "domains": ["shop.example.org"]}]},
        'certbot_certificates[0].name is "../shop"',
    ),
    "an address without domain": ({"certbot_email": "ops"}, 'certbot_email is "ops", which is not'),
    "an address that receives no mail": (
        {"certbot_email": "ops@example"},
        'certbot_email is "ops@example", which has a domain with',
    ),
    "an address from the documentation": (
        {"certbot_email": "ops@example.com"},
        'certbot_email ("ops@example.com") has a domain that receives no mail',
    ),
    "private names": (
        {"certbot_certificates": [{"name": "shop", "domains": ["shop.local", "shop.home.arpa"]}]},
        "certbot_certificates has shop.local and shop.home.arpa, which can exist in private "
        "networks only: use a public name, name a private authority in certbot_directory_url, or "
        "set certbot_obtain: false",
    ),
    "a domain twice": (
        {"certbot_certificates": [{"name": "s", "domains": ["a.example.org", "A.example.org"]}]},
        "certbot_certificates has a.example.org twice in one certificate: list each name once",
    ),
    "too many names": (
        {
            "certbot_certificates": [
                {"name": "shop", "domains": [f"n{number}.example.org" for number in range(101)]}
            ]
        },
        "certbot_certificates has a certificate with more than 100 names, which no authority "
        "issues: divide the names among several certificates",
    ),
    "no port": (
        {"certbot_serving_address": "127.0.0.1"},
        'certbot_serving_address is "127.0.0.1", which ',
    ),
    "no HTTPS": (
        {"certbot_directory_url": "http://acme.example.org/directory"},
        'certbot_directory_url ("http://acme.example.org/directory") is not an HTTPS address',
    ),
    "no CA file": (
        {"certbot_ca_file": "/nonexistent.pem"},
        'certbot_ca_file ("/nonexistent.pem") is not a file on the control node: name a PEM file',
    ),
    "a password": (
        {"certbot_https_proxy": "http://ops:secret@proxy.example.org:3128"},
        "contains a user name or password, which everybody on the host could read: use a proxy",
    ),
    "no reload": ({"certbot_reload_argv": []}, "certbot_reload_argv is empty"),
    "negative jitter": (
        {"certbot_renewal_jitter_seconds": -1},
        "certbot_renewal_jitter_seconds is -1, which is negative: use 0 to 604800",
    ),
    "a kind of key": (
        {"certbot_key_type": "dsa"},
        'certbot_key_type is "dsa" (text); use one of ecdsa-p256, ecdsa-p384, rsa-2048, rsa-4096',
    ),
    "a typing error": (
        {"certbot_emial": "ops@example.org"},
        "certbot_emial is not a variable of role certbot; did you mean certbot_email?",
    ),
    "an old Python": (
        {},
        'certbot_install ("bundle") needs Python 3.10 or newer on the host, which has 3.9: set '
        "certbot_install: package",
    ),
}

# The remedies for private names and for an address, followed.
PRIVATE = {"certbot_certificates": [{"name": "shop", "domains": ["shop.localhost"]}]}
ACCEPTED: tuple[dict[str, Any], ...] = (
    {**PRIVATE, "certbot_obtain": False},
    {
        **PRIVATE,
        "certbot_email": "ops@home.test",
        "certbot_directory_url": "https://ca.home.test/dir",
    },
    {"certbot_email": "", "certbot_serving_address": ""},
    {**RFC2136, "certbot_certificates": [{"name": "shop", "domains": ["*.example.org"]}]},
    {"certbot_challenge": "dns-hook", "certbot_dns_hook_argv": ["/usr/local/sbin/record", "-v"]},
    {**ADDRESS, "certbot_profile": "shortlived"},
    {"certbot_account_binding": {"kid": "kid-1", "hmac_key": "zWNDZM6eQGHWpSRTPal5eIUYFTu7"}},
)


@pytest.fixture(scope="module")
def refusals() -> dict[str, str]:
    """What preflight says of each case, and of none."""
    cases = {"good": Case(GOOD)}
    for number, variables in enumerate(ACCEPTED):
        cases[f"accepted-{number}"] = Case({**GOOD, **variables})
    for name, (variables, _) in BAD.items():
        cases[name] = Case({**GOOD, **variables})
    cases["an old Python"] = Case(GOOD, host={"python": {"version": "3.9"}})
    return preflight("certbot", cases)


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_refused_with_its_remedy(refusals: dict[str, str], case: str) -> None:
    """Before anything is changed: the variable, what was found, what to do."""
    message = refusals[case]
    assert BAD[case][1] in message
    assert message.startswith("1 problem has to be fixed")


@pytest.mark.parametrize(
    "host", ["good", *(f"accepted-{number}" for number in range(len(ACCEPTED)))]
)
def test_good_variables_are_not_refused(refusals: dict[str, str], host: str) -> None:
    assert refusals[host] == ""
