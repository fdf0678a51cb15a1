"""`wsgi.host.preflight`: one refused case per guard with its message, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import EncryptedString, VaultLib, VaultSecret, VaultSecretsContext
from ansible.template import Templar
from ansible_collections.wsgi.host.plugins.action.preflight import ActionModule
from ansible_collections.wsgi.host.plugins.plugin_utils import families
from ansible_collections.wsgi.host.plugins.plugin_utils.formats import FORMATS
from ansible_collections.wsgi.host.plugins.plugin_utils.variables import distance
from conftest import Play, action_of, trusted

SPEC: dict[str, Any] = {
    "web_port": {"type": "int", "default": 80, "description": "Port that answers HTTP."},
    "web_tls_port": {"type": "int", "default": 443, "description": "Port that answers HTTPS."},
    "web_domains": {
        "type": "list",
        "elements": "str",
        "required": True,
        "description": ["Names under which C(web) is reached. The main one comes first."],
    },
    "web_mail": {"type": "str", "default": "", "description": "Address of the operators."},
    "web_compress": {"type": "bool", "default": True, "description": "Whether to compress."},
    "web_ratio": {"type": "float", "default": 0.5, "description": "Ratio."},
    "web_limit": {"type": "bytes", "default": "1M", "description": "Size."},
    "web_root": {"type": "path", "description": "Directory."},
    "web_extra": {"type": "raw", "description": "Anything."},
    "web_level": {
        "type": "str",
        "choices": ["info", "warning"],
        "default": "info",
        "description": "Level.",
    },
    "web_key": {"type": "str", "no_log": True, "default": "", "description": "Key."},
    "web_environment": {"type": "dict", "default": {}, "description": "Environment."},
    "web_sites": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "description": "Sites.",
        "options": {
            "name": {"type": "str", "required": True, "description": "Name of the site."},
            "domains": {"type": "list", "elements": "str", "description": "Its names."},
            "upstream": {"type": "str", "default": "", "description": "Where it goes."},
            "headers": {"type": "dict", "description": "Headers."},
        },
    },
    "web_credentials": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "description": "Credentials.",
        "options": {
            "name": {"type": "str", "required": True, "description": "Name."},
            "value": {"type": "str", "no_log": True, "description": "Value."},
        },
    },
}

HOST: dict[str, Any] = {
    "distribution": "debian",
    "distribution_like": [],
    "pretty_name": "Debian GNU/Linux 13 (trixie)",
    "systemd": {"running": True, "version": 257},
    "root": True,
    "cpus": 2,
    "mounts": {"/": 1000, "/opt": 100, "/var/lib": 50},
    "listeners": [],
}

SECRET = "correct horse battery staple"


class Preflight:
    """The action with a role in a folder, variables and a host that is made up."""

    def __init__(self, folder: Path) -> None:
        self.roles = folder / "roles"
        self.spec = dict(SPEC)
        self.play = "play-1"
        self.probed = 0
        self.answer: dict[str, Any] | None = None  # of the probe, in place of the facts
        self.facts: dict[str, Any] = {}
        for name in ("web", "web_monitor", "mail"):
            (self.roles / name / "tasks").mkdir(parents=True)

    def write(self, path: str, content: Any) -> None:
        file = self.roles / "web" / path
        file.parent.mkdir(exist_ok=True)
        text = yaml.safe_dump(content, sort_keys=False)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)

    def run(
        self,
        variables: dict[str, Any] | None = None,
        host: dict[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Run it. `variables` come on top of the defaults, `host` on top of HOST."""
        self.write("meta/argument_specs.yml", {"argument_specs": {"main": {"options": self.spec}}})
        defaults = {
            name: option["default"] for name, option in self.spec.items() if "default" in option
        }
        self.write("defaults/main.yml", defaults)
        task_vars = {
            "inventory_hostname": "web1",
            "role_path": str(self.roles / "web"),
            "ansible_facts": self.facts,
            **trusted({**defaults, "web_domains": ["app.example.com"], **(variables or {})}),
        }
        loader = DataLoader()
        loader.set_basedir(str(self.roles.parent))
        told = {"role": "web", **trusted(options)}
        action = action_of(ActionModule, told, task_vars, loader, play=self.play)

        def probe(**call: Any) -> dict[str, Any]:
            assert call["module_name"] == "wsgi.host.probe"
            self.probed += 1
            facts = {"ansible_facts": {"wsgi_host": {**HOST, **(host or {})}}, "changed": False}
            return self.answer or facts

        action._execute_module = probe
        result: dict[str, Any] = action.run(None, task_vars)
        self.facts = result.get("ansible_facts", self.facts)
        return result

    def problems(self, *arguments: Any, **options: Any) -> list[str]:
        """What it complains about."""
        result = self.run(*arguments, **options)
        assert result["changed"] is False
        if not result.get("failed"):
            return []
        lines = result["msg"].splitlines()
        assert lines[-1] == "Nothing was changed on web1."
        return [line.removeprefix("- ") for line in lines[1:-1]]


@pytest.fixture
def preflight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Preflight:
    """With two families of systems that have variables of the role, and one that has none."""
    monkeypatch.setattr(families, "DIRECTORY", tmp_path / "families")
    families.DIRECTORY.mkdir()
    for name, told in {
        "Debian": {"__family_ids": ["debian"], "__web_group": "www-data"},
        "RedHat": {"__family_ids": ["rhel"], "__web_group": "web"},
        "Suse": {"__family_ids": ["suse"], "__website_group": "another role's"},
    }.items():
        families.file_of(name).write_text(yaml.safe_dump(told))
    return Preflight(tmp_path)


# The host -----------------------------------------------------------------------------------------


def test_a_host_and_variables_that_are_right_pass(preflight: Preflight) -> None:
    result = preflight.run(free_disk_mib={"/opt": 100})
    assert not result.get("failed")
    assert result["changed"] is False
    assert result["ansible_facts"]["wsgi_host"]["cpus"] == 2


def test_an_unsupported_system(preflight: Preflight) -> None:
    host = {"distribution": "alpine", "pretty_name": "Alpine Linux v3.22"}
    assert preflight.problems(host=host) == [
        "the host runs Alpine Linux v3.22 (family alpine); role web supports Debian, RedHat: use "
        "such a system, or add the role's variables (__web_...) to "
        "collections/ansible_collections/wsgi/host/families/alpine.yml"
    ]


def test_a_family_that_only_other_roles_support(preflight: Preflight) -> None:
    host = {"distribution": "sles", "distribution_like": ["suse"], "pretty_name": "SLES 16"}
    (problem,) = preflight.problems(host=host)
    assert problem.startswith("the host runs SLES 16 (family Suse); role web supports Debian, RedH")


def test_a_role_that_does_the_same_everywhere(preflight: Preflight) -> None:
    for path in families.DIRECTORY.iterdir():
        told = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({"__family_ids": told["__family_ids"]}))
    assert preflight.problems(host={"distribution": "alpine"}) == []


def test_a_host_without_systemd(preflight: Preflight) -> None:
    (problem,) = preflight.problems(host={"systemd": {"running": False, "version": 0}})
    assert problem.startswith("the host is not run by systemd: boot it with systemd")


def test_a_run_without_root(preflight: Preflight) -> None:
    assert preflight.problems(host={"root": False}) == [
        "tasks do not run as root: set `become: true` in the play, or pass --become"
    ]


def test_a_host_that_cannot_be_reached(preflight: Preflight) -> None:
    """It keeps Ansible's own verdict and words, and no variable is blamed."""
    preflight.answer = {"unreachable": True, "msg": "no route"}
    result = preflight.run({"web_port": "eighty"})
    assert result["unreachable"] is True
    assert result["msg"].startswith("The host was not reached. Check that it is running")
    assert result["msg"].endswith("Output:\nno route")
    assert "docs/" not in result["msg"]
    preflight.answer = {"unreachable": True, "msg": "Host key verification failed."}
    assert "(docs/MAINTENANCE.md, The first connection)" in preflight.run({})["msg"]


# Names --------------------------------------------------------------------------------------------


def test_an_unknown_variable_and_the_nearest_name(preflight: Preflight) -> None:
    assert preflight.problems({"web_tls_prot": 443}) == [
        "web_tls_prot is not a variable of role web; did you mean web_tls_port? "
        "Rename it, or remove it"
    ]


@pytest.mark.parametrize("name", ["relase", "releas", "Release", "releases"])
def test_a_typing_error_in_a_short_name(preflight: Preflight, name: str) -> None:
    """`-e relase=ID` went back to another release than the one that was typed."""
    assert preflight.problems({name: "0a1b2c"}, short_names=["release"]) == [
        f"{name} is not a variable of role web; did you mean release? "
        "Rename it, or if it is yours choose a name that is less like it"
    ]
    assert preflight.problems({"release": "0a1b2c"}, short_names=["release"]) == []
    assert preflight.problems({name: 1, "release": 2}, short_names=["release"]) == []


def test_the_nearest_of_several_short_names(preflight: Preflight) -> None:
    """`aplications` was taken for `application`, which a playbook wants with -e."""
    (problem,) = preflight.problems(
        {"aplications": {}}, short_names=["application", "applications"]
    )
    assert "did you mean applications? " in problem


def test_the_prefix_alone_makes_no_two_names_alike(preflight: Preflight) -> None:
    """It was taken for web_mail, as toll_app_domains was for toll_app_demo."""
    [problem] = preflight.problems({"web_kind": 1})
    assert "did you mean" not in problem


def test_an_unknown_variable_that_is_like_none(preflight: Preflight) -> None:
    assert preflight.problems({"web_qqqqqqqqqqqqqqqqqqq": 1}) == [
        "web_qqqqqqqqqqqqqqqqqqq is not a variable of role web; the variables of role web are in "
        "its README: rename it, or remove it"
    ]


@pytest.mark.parametrize("name", ["wbe_tls_port", "wep_tls_port", "webtls_port", "Web_tls_port"])
def test_a_typing_error_in_the_prefix(preflight: Preflight, name: str) -> None:
    assert preflight.problems({name: 8443}) == [
        f"{name} is not a variable of role web; did you mean web_tls_port? "
        "Rename it, or if it is yours choose a name that is less like it"
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("web_monitor_anything", "role web_monitor has a longer name and checks its own"),
        ("mail_tls_port", "role mail checks its own"),
        ("__web_tls_port", "private"),
        ("ansible_web_tls_port", "Ansible's"),
        ("vault_web_key", "a vault's variable for one of the role's"),
        ("frontend_tls_port", "somebody's own"),
    ],
)
def test_names_that_are_nobodys_typing_error(preflight: Preflight, name: str, reason: str) -> None:
    assert preflight.problems({name: 1}) == [], reason


def test_a_similar_name_beside_the_real_one_is_meant(preflight: Preflight) -> None:
    assert preflight.problems({"wep_tls_port": 8443, "web_tls_port": "{{ wep_tls_port }}"}) == []


@pytest.mark.parametrize(
    ("one", "other", "errors"),
    [("ngnix", "nginx", 1), ("nginx", "nginx", 0), ("ngin", "nginx", 1), ("abc", "", 3)],
)
def test_typing_errors_are_counted(one: str, other: str, errors: int) -> None:
    """Two letters in the wrong order are one error."""
    assert distance(one, other) == errors


# Types --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "web_port",
            "eighty",
            'web_port is "eighty" (text); an integer is needed: '
            "set it to a port number between 1 and 65535",
        ),
        (
            "web_tls_port",
            "8443",
            'web_tls_port is "8443" (text); an integer is needed: write a whole number, without '
            "a unit, without quotation marks: web_tls_port: 8443, on the command line "
            "-e '{\"web_tls_port\": 8443}'",
        ),
        (
            "web_tls_port",
            True,
            "web_tls_port is true (true or false); an integer is needed: write a whole number, "
            "without a unit",
        ),
        (
            "web_tls_port",
            4.5,
            "web_tls_port is 4.5 (a number); an integer is needed: write a whole number, without "
            "a unit",
        ),
        (
            "web_tls_port",
            None,
            "web_tls_port is null: give it a value (Port that answers HTTPS)",
        ),
        (
            "web_compress",
            "no",
            'web_compress is "no" (text); true or false is needed: write true or false, without '
            "quotation marks: web_compress: false, "
            "on the command line -e '{\"web_compress\": false}'",
        ),
        (
            "web_compress",
            "maybe",
            'web_compress is "maybe" (text); true or false is needed: write true or false',
        ),
        (
            "web_ratio",
            "half",
            'web_ratio is "half" (text); a number is needed: write a number, without a unit',
        ),
        (
            "web_limit",
            "much",
            'web_limit is "much" (text); a size is needed: write a size such as 64M',
        ),
        (
            "web_root",
            5,
            "web_root is 5 (a number); a path is needed: write the path as text",
        ),
        (
            "web_mail",
            True,
            "web_mail is true (true or false); text is needed: put it in quotation marks",
        ),
        (
            "web_mail",
            1.10,
            "web_mail is 1.1 (a number); text is needed: put it in quotation marks",
        ),
        (
            "web_domains",
            "app.example.com",
            'web_domains is "app.example.com" (text); a list is needed: write one item per line, '
            "each after a hyphen, or web_domains: [app.example.com]",
        ),
        (
            "web_domains",
            ["app.example.com", ["www.example.com"]],
            "web_domains[1] is [1 item] (a list); text is needed: put it in quotation marks",
        ),
        (
            "web_domains",
            ["app.example.com", None],
            "web_domains[1] is null: remove the item, or give it a value",
        ),
        (
            "web_environment",
            ["A=1"],
            "web_environment is [1 item] (a list); a dictionary is needed: write one "
            "`key: value` per line below it",
        ),
        (
            "web_level",
            "warn",
            'web_level is "warn" (text); did you mean warning? use one of info, warning',
        ),
        (
            "web_sites",
            [{"name": "shop"}, {"name": "blog", "domain": ["x.example.com"]}],
            "web_sites[1].domain is not a key of web_sites[1]; did you mean domains? Rename it, "
            "or remove it",
        ),
        (
            "web_sites",
            [{"name": "shop", "zzzzzzz": 1}],
            "web_sites[0].zzzzzzz is not a key of web_sites[0]; the keys are name, domains, "
            "upstream, headers: rename it, or remove it",
        ),
        (
            "web_sites",
            [{"domains": []}],
            "web_sites[0].name is not set: set it (Name of the site)",
        ),
        (
            "web_sites",
            [{"name": "shop", "domains": "a.example.com"}],
            'web_sites[0].domains is "a.example.com" (text); a list is needed: write one item per '
            "line, each after a hyphen, or web_sites[0].domains: [a.example.com]",
        ),
        (
            "web_sites",
            ["shop"],
            'web_sites[0] is "shop" (text); a dictionary is needed: write one `key: value` per '
            "line below it",
        ),
    ],
)
def test_a_value_of_another_type(
    preflight: Preflight, variable: str, value: Any, message: str
) -> None:
    assert preflight.problems({variable: value}, formats={"web_port": "port"}) == [message]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("web_mail", 5),
        ("web_ratio", 1),
        ("web_limit", "64M"),
        ("web_limit", 1024),
        ("web_root", None),
        ("web_extra", {"any": [1]}),
        ("web_port", "{{ 40 + 40 }}"),
        ("web_domains", "{{ ['a.example.com'] + ['b.example.com'] }}"),
        ("web_sites", [{"name": "shop", "domains": ["a.example.com"], "headers": {"a": 1}}]),
        ("web_sites", [{"name": "shop", "domains": None}]),
    ],
)
def test_values_that_a_template_can_take_as_they_are(
    preflight: Preflight, variable: str, value: Any
) -> None:
    assert preflight.problems({variable: value}) == []


def test_a_required_variable_that_nobody_set(preflight: Preflight) -> None:
    preflight.spec["web_name"] = {"type": "str", "required": True, "description": "O(web) B. More."}
    assert preflight.problems() == ["web_name is not set: set it (web B)"]


def test_a_value_that_refers_to_nothing_names_its_variable(preflight: Preflight) -> None:
    assert preflight.problems({"web_sites": [{"name": "{{ shop.name }}"}]}) == [
        "web_sites cannot be computed ('shop' is undefined): define what it refers to, or correct "
        "it"
    ]


def test_a_default_made_of_a_faulty_variable_says_nothing_of_its_own(preflight: Preflight) -> None:
    """One cause, one message."""
    preflight.spec["web_main"] = {"type": "str", "default": "{{ web_name }}", "description": "M."}
    preflight.spec["web_name"] = {"type": "str", "required": True, "description": "Name."}
    assert preflight.problems() == ["web_name is not set: set it (Name)"]
    (problem,) = preflight.problems({"web_name": "{{ nowhere }}"})
    assert problem.startswith("web_name cannot be computed")


def test_a_default_made_of_something_that_is_nowhere(preflight: Preflight) -> None:
    preflight.spec["web_group"] = {"type": "str", "default": "{{ __web_gruop }}"}
    (problem,) = preflight.problems()
    assert problem.startswith("web_group cannot be computed ('__web_gruop' is undefined)")


def test_defaults_may_come_from_the_facts_and_the_familys_variables(preflight: Preflight) -> None:
    preflight.spec["web_workers"] = {
        "type": "int",
        "default": "{{ ansible_facts['wsgi_host'].cpus * 2 + 1 }}",
        "description": "Workers.",
    }
    preflight.spec["web_group"] = {
        "type": "str",
        "default": "{{ __web_group }}",
        "choices": ["www-data"],
        "description": "Group.",
    }
    assert preflight.problems() == []
    preflight.play = "play-2"
    assert preflight.problems(host={"cpus": "two"})[0].startswith("web_workers cannot be computed")


# Formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "value", "problem"),
    [
        ("domain", "https://app.example.com", "starts with a scheme: write the name alone"),
        ("domain", "app.example.com/shop", "has a path: write the name alone"),
        ("domain", "app.example.com:8443", "has a port: write the name alone"),
        ("domain", "app.example.com www.example.com", "has a blank: write one name per item"),
        ("domain", "*.example.com", "has a wildcard: list each name by itself"),
        ("domain", "192.0.2.10", "is an IP address: write the name that leads to it"),
        ("domain", "2001:db8::10", "is an IP address: write the name that leads to it"),
        ("domain", "app.example.com.", "ends with a dot: leave the dot off"),
        ("domain", "my_app.example.com", "has an underscore: use hyphens"),
        ("domain", "bücher.example", "write it in punycode: xn--bcher-kva.example"),
        ("domain", "a" * 64 + ".com", "has a part of 64 characters: use at most 63"),
        ("domain", ".".join(["a" * 49] * 6), "has 299 characters: use a name of at most 253"),
        ("domain", "app..example.com", "has two dots in a row"),
        ("domain", "-app.example.com", 'has the part "-app": use letters, digits and'),
        ("domain", "app;.example.com", 'has the part "app;"'),
        ("domain", "app.example.123", "ends with a number"),
        ("domain", "", "is empty: write a name such as app.example.com"),
        ("domain", "localhost", "is every host's name for itself: write the name that clients use"),
        ("host_name", "my_host", "has an underscore"),
        ("line", "a\nb", "has a line break or another control character: write it in one line"),
        ("line", True, "is not text: put it in quotation marks"),
        ("password", "short", "is shorter than 12 characters"),
        ("password", "a1" * 8, "is made of fewer than 6 different characters"),
        ("password", " twelve chars", "begins or ends with a blank"),
        ("secret_key", "k" * 64, "is made of fewer than 6 different characters: make one with"),
        ("secret_key", "0123456789abcdef", "is shorter than 32 characters: make one with"),
        ("body_size", "1GB", "is not a size: write a number of bytes, or one with k or m"),
        ("systemd_size", "1GB", "is not a size: write it as 500M or 2G"),
        ("url_path", "healthz", "is not a path that can be asked for: begin it with /"),
        ("network", "office", "is neither an IP address nor a network: write one such as"),
        ("network", "192.0.2.1/24", "names a host within a network: write 192.0.2.0/24"),
        ("subject", "2001:DB8::0001", "is an address in another form: write 2001:db8::1"),
        ("location", "/a b", "is not a path of letters, digits, /, ., -, _"),
        ("redirect_target", "javascript:x", "is neither a URL nor a path: write one such as"),
        ("request_rate", "5/s", "is not a rate: write one such as 20r/s or 10r/m"),
        ("header", "X Real", "is not the name of a header: write one such as X-Forwarded-For"),
        ("http_user", "a:b", "cannot name a user: use at most 64 letters"),
        ("password_hash", "swordfish", "is not a hash that begins with $6$"),
        ("configuration", "a\0b", "has a control character: write plain lines"),
        ("sha256", "abc", "is not a SHA-256"),
        ("unit", "postgresql", "is not the name of a unit: write it whole"),
        ("system_name", "Shop", "cannot name a user or group"),
        ("server", "mail.example.com", "has no port: write name:port"),
        ("server", "a_b:25", "has no host before the port"),
        ("calendar", "every night", "is not a calendar event: write it as systemd.time(7) does"),
        ("email", "ops@example", "has a domain without a dot"),
        (
            "postgresql_url",
            "postgresql://u:PASSWORD@db.example.com/toll",
            "has the placeholder of an example as its password",
        ),
        ("domain", 5, "is not a domain"),
        ("wildcard_domain", "a.*.example.com", "has a wildcard: write *. in front of a name"),
        ("wildcard_domain", "*.", "is empty"),
        ("address", "192.0.2.300", "is not an IP address: write one such as 192.0.2.10"),
        ("address", "localhost", "is not an IP address"),
        ("address_in_network", "192.0.2.300/24", "is not an IP address with the prefix of its"),
        ("address_in_network", "192.0.2.20", "has no prefix, the length of its network: write one"),
        ("address_in_network", "192.0.2.20/255.255.255.0", "has a mask where the length of a"),
        ("address_in_network", "192.0.2.255/24", "is an end of the network 192.0.2.0/24, which no"),
        ("address_in_network", "127.0.0.5/8", "is no address that others reach a host at"),
        ("endpoint", "localhost:5000", 'has "localhost" where an IP address is needed: write'),
        ("endpoint", "127.0.0.1", "is not an address with a port: write 127.0.0.1:5000"),
        ("endpoint", "127.0.0.1:70000", "has 70000 for a port: use a port between 1 and 65535"),
        ("endpoint", "::1:5000", "is not an address with a port"),
        ("endpoint", "[127.0.0.1]:5000", 'has "127.0.0.1" where an IP address is needed'),
        ("endpoint", "unix:run/x.sock", "names a socket that is not an absolute path"),
        ("endpoint", "http://127.0.0.1:5000", "is not an address with a port"),
        ("port", 0, "is not a port: set it to a port number between 1 and 65535"),
        ("port", 65536, "is not a port"),
        ("port", "http", "is not a port"),
        ("absolute_path", "etc/nginx", "is not an absolute path: write the whole path"),
        ("absolute_path", "~/x", "is not an absolute path"),
        ("absolute_path", "/srv/../etc", "goes up with .."),
        ("absolute_path", "/srv/my app", "has a character that configuration files give a meaning"),
        ("absolute_path", "/srv/x;", "has a character that configuration files give a meaning"),
        ("local_path", "app", "is not an absolute path"),
        ("name", "my site", "cannot name a file: use letters, digits, dots"),
        ("name", "../x", "cannot name a file"),
        ("name", "a" * 65, "has 65 characters: use at most 64"),
        ("email", "ops", "is not a mail address: write one such as ops@example.com"),
        ("email", "Ops <ops@example.com>", "has no user, or a character that none has"),
        ("email", "ops@example_com", "has a domain that has an underscore"),
        ("url", "acme.example.com", "does not start with http:// or https://"),
        ("url", "https://", "names no host"),
        ("url", "https://a b/", "has a blank"),
        ("url", "https://a_b.example/", "has a host that has an underscore"),
        ("url", "https://a.example:99999/", "is not a URL"),
        (
            "postgresql_url",
            "db.example.com/toll",
            "is not a URL: write postgresql://user:password@",
        ),
        ("postgresql_url", "mysql://u:p@db/toll", "starts with mysql://: write postgresql://"),
        ("postgresql_url", "postgresql+asyncpg://u:p@db/toll", "starts with postgresql+asyncpg://"),
        ("postgresql_url", "sqlite:////srv/toll.db", "is a file: leave it empty for SQLite"),
        ("postgresql_url", "postgresql://u:p@db", "names no database"),
        ("postgresql_url", "postgresql://u:p q@db/toll", "has a blank or a line break"),
        ("postgresql_url", "postgresql://u:p@q@db/toll", "has an @ or a # within the password"),
        ("postgresql_url", "postgresql://u:p#q@db/toll", "write %40 for @, %23 for #"),
        ("postgresql_url", "postgresql://u:p/q@db/toll", "has a port that is none"),
        ("postgresql_url", "postgresql://u:p@db:0/toll", "has a port that is none"),
    ],
)
def test_a_value_of_another_format(
    preflight: Preflight, format_: str, value: Any, problem: str
) -> None:
    (found,) = preflight.problems({"web_extra": value}, formats={"web_extra": format_})
    assert found.startswith("web_extra is ")
    assert f", which {problem}" in found or f": {problem}" in found


@pytest.mark.parametrize(
    ("format_", "values"),
    [
        ("host_name", ["db.example.com", "localhost", "192.0.2.1", "::1"]),
        ("line", ["", "a b", 5]),
        ("password", ["correct horse battery"]),
        ("secret_key", ["0123456789abcdef" * 4]),
        ("body_size", ["1m", 1048576, "512K"]),
        ("systemd_size", ["1G", 1000, "500M"]),
        ("url_path", ["/", "/healthz"]),
        ("network", ["192.0.2.0/24", "192.0.2.1", "2001:db8::/32"]),
        ("subject", ["*.example.com", "192.0.2.1", "2001:db8::1"]),
        ("location", ["/", "/api/v1/"]),
        ("redirect_target", ["https://www.example.com/new?a=1", "/new/"]),
        ("request_rate", ["5r/s", "10r/m", "unlimited"]),
        ("header", ["X-Forwarded-For", "CF-Connecting-IP"]),
        ("http_user", ["anna", "ops@example.com"]),
        ("password_hash", ["$6$salt$" + "a" * 86]),
        ("configuration", ["a 1;\n\tb 2;"]),
        ("sha256", ["0" * 64]),
        ("unit", ["postgresql@17-main.service", "nginx.service"]),
        ("system_name", ["shop", "_apt"]),
        ("server", ["mail.example.com:587", "127.0.0.1:25", "::1:25"]),
        ("calendar", ["hourly", "*-*-* 02:30:00"]),
        ("domain", ["app.example.com", "web1", "xn--bcher-kva.example", "1.example.com"]),
        ("wildcard_domain", ["*.example.com", "app.example.com"]),
        ("address", ["192.0.2.10", "::1"]),
        ("address_in_network", ["192.0.2.20/24", "2001:db8::20/64"]),
        ("endpoint", ["127.0.0.1:5000", "[::1]:5000", "unix:/run/gunicorn/toll-app.sock"]),
        ("port", [1, 65535, "8443"]),
        ("absolute_path", ["/", "/etc/letsencrypt/live/app.example.com/key.pem"]),
        ("local_path", ["/home/me/my projects/app"]),
        ("name", ["toll-app", "app.example.com", "a_b"]),
        ("email", ["ops@example.com", "first.last+tag@sub.example.com"]),
        (
            "url",
            ["https://acme.example.com/directory", "http://[::1]:14000/dir", "http://10.0.0.1"],
        ),
        (
            "postgresql_url",
            [
                "postgresql://toll:p%40ss@db.example.com:5432/toll?sslmode=verify-full",
                "postgresql+psycopg://toll@[::1]/toll",
                "postgres://toll@db/toll",
                "postgresql:///toll?host=/run/postgresql",
            ],
        ),
    ],
)
def test_values_of_a_format(preflight: Preflight, format_: str, values: list[Any]) -> None:
    for value in values:
        assert preflight.problems({"web_extra": value}, formats={"web_extra": format_}) == []


@pytest.mark.parametrize(
    "value",
    [
        "pw-7f3a@db/toll",
        "pw-7f3a://x",
        "postgresql://u:pw-7f3a@q@db/x",
        "postgresql://u:pw-7f3a/@d/x",
    ],
)
def test_a_fault_of_a_database_does_not_repeat_its_password(value: str) -> None:
    assert "7f3a" not in str(FORMATS["postgresql_url"](value))


def test_every_format_has_a_refused_and_an_accepted_case() -> None:
    """So that a new format does not come without its tests."""
    for test in (test_a_value_of_another_format, test_values_of_a_format):
        cases = next(mark for mark in test.pytestmark if mark.name == "parametrize").args[1]
        assert {case[0] for case in cases} == set(FORMATS)


def test_formats_reach_into_lists_and_dictionaries(preflight: Preflight) -> None:
    formats = {
        "web_sites.*.domains.*": "domain",
        "web_sites.*.upstream": "endpoint",
        "web_environment.*": "email",
    }
    variables = {
        "web_sites": [
            {"name": "shop", "domains": ["shop.example.com", "shop_2.example.com"]},
            {"name": "blog", "upstream": "localhost:1"},
        ],
        "web_environment": {"A": "ops@example.com", "B": "ops"},
    }
    found = preflight.problems(variables, formats=formats)
    assert [problem.split(",")[0] for problem in found] == [
        'web_environment.B is "ops"',
        'web_sites[0].domains[1] is "shop_2.example.com"',
        'web_sites[1].upstream is "localhost:1"',
    ]


def test_the_default_of_the_specification_has_any_format(preflight: Preflight) -> None:
    """Empty means "none" where the specification says so."""
    formats = {"web_mail": "email", "web_sites.*.upstream": "endpoint"}
    sites = [{"name": "shop", "upstream": ""}]
    assert preflight.problems({"web_mail": "", "web_sites": sites}, formats=formats) == []


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ({"web_mail": "mail"}, "mail is neither a range such as 1..60 nor a format; there are "),
        ({"web_mial": "email"}, "web_mial starts with no variable of role web"),
    ],
)
def test_a_mistake_in_the_roles_own_formats(
    preflight: Preflight, formats: dict[str, str], message: str
) -> None:
    with pytest.raises(AnsibleActionFail, match=message):
        preflight.run(formats=formats)


# Rules --------------------------------------------------------------------------------------------

PORTS_DIFFER = {
    "that": "web_port != web_tls_port",
    "variable": "web_tls_port",
    "problem": "is also web_port",
    "remedy": "use different ports for HTTP and HTTPS",
}


def test_a_rule_across_variables(preflight: Preflight) -> None:
    assert preflight.problems({"web_tls_port": 80}, rules=[PORTS_DIFFER]) == [
        "web_tls_port (80) is also web_port: use different ports for HTTP and HTTPS"
    ]
    assert preflight.problems({"web_tls_port": 81}, rules=[PORTS_DIFFER]) == []


def test_a_rule_waits_until_its_variables_are_right(preflight: Preflight) -> None:
    for that in ("web_port + 1 < web_tls_port", "web_port | int > 1"):
        rule = {**PORTS_DIFFER, "that": that}
        (problem,) = preflight.problems({"web_port": "eighty"}, rules=[rule])
        assert problem.startswith('web_port is "eighty"')


def test_a_rule_on_the_host_with_a_templated_message(preflight: Preflight) -> None:
    rule = {
        "that": "web_port <= ansible_facts['wsgi_host'].cpus",
        "variable": "web_port",
        "problem": "is more than {{ ansible_facts['wsgi_host'].cpus }}",
        "remedy": "lower it",
    }
    assert preflight.problems({"web_port": 3}, rules=[rule]) == [
        "web_port (3) is more than 2: lower it"
    ]


def test_a_rule_that_cannot_be_evaluated_is_the_roles_mistake(preflight: Preflight) -> None:
    """A guard that silently does not guard would be worse than none."""
    with pytest.raises(
        AnsibleActionFail, match=r"web_tls_port could not be checked, by a fault of role.*web_prot"
    ):
        preflight.run(rules=[{**PORTS_DIFFER, "that": "web_prot > 1"}])
    with pytest.raises(AnsibleActionFail, match="each entry has the keys problem, remedy, that"):
        preflight.run(rules=[{"that": "true", "variable": "web_port", "problem": "is bad"}])
    with pytest.raises(AnsibleActionFail, match="each entry has the keys problem, remedy, that"):
        preflight.run(rules=[{**PORTS_DIFFER, "when": "true"}])
    with pytest.raises(AnsibleActionFail, match="ports: each entry has the keys port, programs"):
        preflight.run(ports=[80])


def test_a_rule_among_others_that_is_no_question_is_the_roles_mistake(preflight: Preflight) -> None:
    with pytest.raises(AnsibleActionFail, match=r"by a fault of role web.*`web_domains`"):
        preflight.run(rules=[PORTS_DIFFER, {**PORTS_DIFFER, "that": "web_domains"}])


def test_rules_that_hold_cost_one_template(
    preflight: Preflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds do, and each would take a millisecond of every run."""
    asked: list[str] = []
    for name in ("evaluate_conditional", "evaluate_expression"):
        before = getattr(Templar, name)

        def count(self: Templar, text: str, before: Any = before) -> Any:
            asked.append(text)
            return before(self, text)

        monkeypatch.setattr(Templar, name, count)
    assert preflight.problems(rules=[PORTS_DIFFER, {**PORTS_DIFFER, "that": "web_port > 1"}]) == []
    assert asked == ["[(web_port != web_tls_port), (web_port > 1)]"]


# Disk ---------------------------------------------------------------------------------------------


def test_too_little_disk(preflight: Preflight) -> None:
    assert preflight.problems(free_disk_mib={"/opt/app": 101}) == [
        "/opt/app has 100 MiB free on the file system /opt; 101 MiB are needed: remove what is not "
        "needed there, or enlarge the file system"
    ]


def test_paths_on_one_file_system_add_up(preflight: Preflight) -> None:
    (problem,) = preflight.problems(free_disk_mib={"/usr": 600, "/etc": 500, "/opt": 100})
    assert problem.startswith("/usr and /etc has 1000 MiB free on the file system /; 1100 MiB")


def test_disk_space_from_a_template(preflight: Preflight) -> None:
    (problem,) = preflight.problems({"web_extra": 2000}, free_disk_mib="{{ {'/': web_extra} }}")
    assert "2000 MiB are needed" in problem


# Ports --------------------------------------------------------------------------------------------


def listener(port: int, **other: Any) -> dict[str, Any]:
    """A listener as the probe describes it."""
    base = {"protocol": "tcp", "address": "0.0.0.0", "port": port, "program": "apache2"}
    return {**base, "pid": 42, "unit": "apache2.service", **other}


def test_a_port_that_another_program_holds(preflight: Preflight) -> None:
    ports = [{"port": "{{ web_port }}", "programs": ["nginx"]}]
    assert preflight.problems(host={"listeners": [listener(80)]}, ports=ports) == [
        "web_port needs port 80, but apache2 (pid 42, apache2.service) listens on 0.0.0.0: "
        "stop it with `systemctl disable --now apache2.service`, or use another port"
    ]


@pytest.mark.parametrize(
    ("holder", "remedy"),
    [
        ({"unit": ""}, "apache2 (pid 42) listens on 0.0.0.0: stop it with `kill 42`"),
        ({"address": "::"}, "apache2.service) listens on [::]: stop it with"),
        ({"program": "sshd", "unit": "ssh.service"}, "sshd listens on 0.0.0.0: use another port"),
        (
            {"program": "", "pid": 0, "unit": ""},
            "another program listens on 0.0.0.0: run as root to see which",
        ),
        (
            {"program": "systemd", "pid": 1, "unit": "cockpit.socket"},
            "systemd (pid 1, cockpit.socket) listens on 0.0.0.0: stop it with `systemctl disable "
            "--now cockpit.socket`",
        ),
    ],
)
def test_who_holds_a_port_and_what_to_do(
    preflight: Preflight, holder: dict[str, Any], remedy: str
) -> None:
    host = {"listeners": [listener(80, **holder)]}
    (problem,) = preflight.problems(host=host, ports=[{"port": 80, "programs": ["nginx"]}])
    assert problem.startswith("the role needs port 80, but ")
    assert remedy in problem


@pytest.mark.parametrize(
    ("port", "holder"),
    [
        (80, listener(80, program="nginx", unit="nginx.service")),
        (80, listener(80, program="systemd", pid=1, unit="web.socket")),
        (80, listener(8080)),
        ("127.0.0.1:80", listener(80, address="192.0.2.1")),
        ("unix:/run/web.sock", listener(80)),
    ],
)
def test_ports_that_are_free_or_the_roles_own(
    preflight: Preflight, port: Any, holder: dict[str, Any]
) -> None:
    ports = [{"port": port, "programs": ["nginx", "web.socket"]}]
    assert preflight.problems(host={"listeners": [holder]}, ports=ports) == []


@pytest.mark.parametrize(
    ("wanted", "address"),
    [("127.0.0.1:80", "127.0.0.1"), ("127.0.0.1:80", "0.0.0.0"), ("[::1]:80", "::1"), (80, "::1")],
)
def test_an_address_that_is_taken(preflight: Preflight, wanted: Any, address: str) -> None:
    host = {"listeners": [listener(80, address=address)]}
    assert len(preflight.problems(host=host, ports=[{"port": wanted}])) == 1


def test_ports_from_templated_lists(preflight: Preflight) -> None:
    """Also the whole option, as a role has it that binds to a list of addresses."""
    host = {"listeners": [listener(80), listener(443)]}
    lists = [{"port": "{{ [web_port, web_tls_port] }}", "variable": "web_domains"}]
    found = preflight.problems(host=host, ports=lists)
    assert [problem.split(",")[0] for problem in found] == [
        "web_domains needs port 443",
        "web_domains needs port 80",
    ]
    whole = "{{ [{'port': web_port, 'programs': ['nginx']}] }}"
    assert len(preflight.problems(host=host, ports=whole)) == 1


def test_a_faulty_port_is_reported_once(preflight: Preflight) -> None:
    ports = [{"port": "{{ web_port + 1 }}", "programs": ["nginx"]}]
    assert len(preflight.problems({"web_port": "x"}, ports=ports)) == 1


# Secrets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variables",
    [
        {"web_key": [SECRET]},
        {"web_credentials": {"name": "a", "value": SECRET}},
        {"web_credentials": [SECRET]},
        {"web_credentials": SECRET},
        {"web_credentials": [{"name": "a", "value": {"b": SECRET}}]},
        {"web_key": "{{ '" + SECRET + "' | bool | mandatory(missing) }}"},
    ],
)
def test_a_secret_is_never_shown(preflight: Preflight, variables: dict[str, Any]) -> None:
    result = preflight.run(variables)
    assert result["failed"]
    assert SECRET not in str(result)


def test_a_rule_names_a_secret_without_its_value(preflight: Preflight) -> None:
    rule = {
        "that": "web_key | length >= 32",
        "variable": "web_key",
        "problem": "is shorter than 32 characters",
        "remedy": "make a longer one",
    }
    assert preflight.problems({"web_key": SECRET}, rules=[rule]) == [
        "web_key is shorter than 32 characters: make a longer one"
    ]


def test_what_a_vault_holds_is_a_secret(
    preflight: Preflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the variable: somebody encrypted it."""
    vault = VaultLib([("default", VaultSecret(b"passphrase"))])
    monkeypatch.setattr(VaultSecretsContext, "_current", VaultSecretsContext(vault.secrets))
    value = EncryptedString(ciphertext=vault.encrypt(SECRET).decode())
    formats = {"web_mail": "email", "web_tls_port": "port"}
    found = preflight.problems({"web_mail": value, "web_tls_port": value}, formats=formats)
    assert SECRET not in str(found)
    assert len(found) == 2
    assert found[0].startswith("web_mail is not a mail address")


# The whole ----------------------------------------------------------------------------------------


def test_everything_at_once_in_the_order_of_the_variables(preflight: Preflight) -> None:
    result = preflight.run(
        {"web_tls_port": 80, "web_mail": "ops", "web_prot": 1},
        host={"systemd": {"running": False, "version": 0}},
        formats={"web_mail": "email"},
        rules=[PORTS_DIFFER],
        free_disk_mib={"/opt": 200},
    )
    lines = result["msg"].splitlines()
    assert lines[0] == "5 problems have to be fixed before role web can run:"
    assert [line.split()[1] for line in lines[1:-1]] == [
        "/opt",
        "the",
        "web_mail",
        "web_prot",
        "web_tls_port",
    ]
    assert lines[-1] == "Nothing was changed on web1."


def test_the_host_is_probed_once_in_a_play(preflight: Preflight) -> None:
    """A trip costs a quarter of a second, and each role asks twice."""
    preflight.run()
    again = preflight.run()
    assert preflight.probed == 1
    assert again == {"changed": False}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"web_tls_port": 443}, {"web_tls_port": 80}),
        ({"web_tls_port": "{{ ports.tls }}", "ports": {"tls": 443}}, {"ports": {"tls": 80}}),
        ({"web_tls_port": "{{ __one }}", "__one": "{{ two }}", "two": 443}, {"two": 80}),
        ({}, {"web_prot": 80}),
        ({}, {"wep_tls_port": 80}),
    ],
)
def test_what_has_passed_is_checked_again_if_it_is_no_longer_the_same(
    preflight: Preflight, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Also where a variable reads the same, and what it is made of does not."""
    rules = [PORTS_DIFFER]
    assert preflight.problems(before, rules=rules) == []
    assert preflight.run(before, rules=rules) == {"changed": False}
    assert len(preflight.problems({**before, **after}, rules=rules)) == 1
    assert preflight.probed == 1


def test_what_may_be_another_each_time_is_checked_each_time(preflight: Preflight) -> None:
    variables = {"web_port": "{{ lookup('env', 'WEB_PORT') | int }}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEB_PORT", "8080")
        assert preflight.problems(variables, formats={"web_port": "port"}) == []
        patch.setenv("WEB_PORT", "0")
        assert len(preflight.problems(variables, formats={"web_port": "port"})) == 1


def test_a_fact_of_another_play_or_run_is_not_believed(preflight: Preflight) -> None:
    """Facts may come out of a cache, and the host has changed since."""
    preflight.run()
    preflight.play = "play-2"
    preflight.run()
    assert preflight.probed == 2


def test_a_role_that_is_nowhere(preflight: Preflight) -> None:
    with pytest.raises(AnsibleActionFail, match="role: there is no role wbe in"):
        preflight.run(role="wbe")
    with pytest.raises(AnsibleActionFail, match=r"role mail has no meta/argument_specs.yml"):
        preflight.run(role="mail")


# In a playbook ------------------------------------------------------------------------------------

Role = Callable[..., dict[str, Any]]


@pytest.fixture
def role(tmp_path: Path) -> Role:
    """Writes role `web` with a preflight of these options and a task that changes something."""

    def write(**options: Any) -> dict[str, Any]:
        folder = tmp_path / "roles" / "web"
        for name in ("meta", "defaults", "tasks"):
            (folder / name).mkdir(parents=True)
        spec = {
            "web_port": {"type": "int", "default": 80, "description": "Port."},
            "web_key": {"type": "str", "no_log": True, "default": "", "description": "Key."},
        }
        (folder / "meta" / "argument_specs.yml").write_text(
            yaml.safe_dump({"argument_specs": {"main": {"options": spec}}})
        )
        (folder / "defaults" / "main.yml").write_text("web_port: 80\nweb_key: ''\n")
        tasks = [
            {"name": "Check", "wsgi.host.preflight": {"role": "web", **options}},
            {"name": "Change", "ansible.builtin.file": {"path": "changed", "state": "touch"}},
        ]
        (folder / "tasks" / "main.yml").write_text(yaml.safe_dump(tasks, sort_keys=False))
        return {"ansible.builtin.import_role": {"name": "web", "rolespec_validate": False}}

    return write


def test_a_playbook_stops_before_it_changes_anything(
    play: Play, role: Role, tmp_path: Path
) -> None:
    """Through Ansible's own variables: extra ones, the inventory's and the role's defaults."""
    rule = {
        "that": "web_port > 100",
        "variable": "web_port",
        "problem": "is below {{ 10 * 10 }}",
        "remedy": "raise it",
    }
    task = role(rules=[rule], ports=[{"port": "{{ web_port + 1 }}", "programs": ["x"]}])
    run = play(task, extra={"web_prot": 8080}, inventory={"web_key": [SECRET], "wbe_port": 1})
    assert run.code != 0
    assert not (tmp_path / "changed").exists()
    assert SECRET not in run.output
    assert "Nothing was changed on here." in run.output
    variables = [problem.split()[0] for problem in run.problems()]
    assert [name for name in variables if "web" in name or "wbe" in name] == [
        "wbe_port",
        "web_key",
        "web_port",
        "web_prot",
    ]


def test_a_playbook_with_right_variables_blames_the_host_alone(
    play: Play, role: Role, tmp_path: Path
) -> None:
    """In check mode: on a machine that could be a host there is nothing to say at all."""
    run = play(role(), arguments=("--check",))
    blamed = [
        problem
        for problem in run.problems()
        if not problem.startswith(("the host is not", "tasks do not run as root"))
    ]
    assert blamed == []
    assert (run.code == 0) == (run.problems() == []), run.output
    assert not (tmp_path / "changed").exists()
