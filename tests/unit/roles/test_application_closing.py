"""The last lines of site.yml: where the site is, who can log in, what is still to be done."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from conftest import trusted

from .describing import shop, toll_app
from .render import ROLES, evaluate

RELEASE = {"id": "0c742c8387b4", "current": None}
SITE, NAMES = "toll-app: https://app.example.com/", ("shop", "cafe")
GIVEN: dict[str, Any] = {
    "__application_rolled_back": False,
    "__application_release": RELEASE,
    # As provision.yml remembers it.
    "__application_outcomes": {"toll-app": trusted("{{ __application_outcome }}")},
}


def closing(told: dict[str, Any] | None = None, **variables: Any) -> str:
    given = {**trusted(toll_app(**(told or {}))), **GIVEN, **variables}
    lines = evaluate("application", "__application_closing | select", "Debian", **given)
    return "\n".join(lines)


def test_a_run_says_where_the_site_is_and_how_the_first_user_is_made():
    said = closing()
    assert said.startswith("toll-app: https://app.example.com/ (release 0c742c8387b4)\n")
    log_in = (
        "Log in: https://app.example.com/login. If there is no user yet, make the first on web1:"
    )
    assert f"{log_in} sudo toll-app flask toll user create NAME --role admin" in said
    assert "Nobody is alerted when it breaks: set monitoring_enabled" in said
    assert "Copies of the data of toll-app are lost with the host: set backup.command" in said
    assert "\n\n" not in said


def test_with_an_admin_it_says_where_the_password_is_and_not_which():
    said = closing(toll_app_admin_password="seen-7f3a-seen-7f3a", toll_app_admin_name="anna")
    assert "Log in: https://app.example.com/login as anna, with toll_app_admin_password" in said
    assert "seen-7f3a" not in said


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"monitoring_enabled": True}, "Nobody is alerted"),
        ({"told": {"backup": {"command": ["/usr/bin/rsync"]}}}, "backup.command"),
        ({"told": {"backup": {"enabled": False}}}, "backup.command"),
    ],
)
def test_what_is_done_is_not_asked_for(variables, words):
    assert words in closing()
    assert words not in closing(**variables)


def test_another_port_and_a_certificate_of_its_own_are_said():
    said = closing(nginx_https_port=8443, certbot_obtain=False)
    assert "https://app.example.com:8443/ " in said
    assert "self-signed" in said
    assert "self-signed" not in closing()


def test_the_next_command_acts_on_the_same_inventory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed without -i, it acted on the demo that ansible.cfg names."""
    monkeypatch.setenv("PWD", "/srv/project")
    said = closing(
        ansible_inventory_sources=["/srv/project/inventory/production", "/etc/more/hosts.yml"]
    )
    command = "ansible-playbook -i inventory/production -i /etc/more/hosts.yml playbooks/status.yml"
    assert f"See what runs where: {command};" in said


def test_notes_are_of_the_application_that_has_them():
    told = {
        "applications": {
            **toll_app()["applications"],
            **shop(domains=["b.example.com"])["applications"],
        }
    }
    outcomes = {
        name: {"served": f"{name}: served", "not_deployed": ""} for name in told["applications"]
    }
    given = {**GIVEN, **trusted(told), "__application_outcomes": outcomes}
    lines = evaluate("application", "__application_closing | select", "Debian", **given)
    assert lines[:2] == ["toll-app: served", "shop: served"]
    assert lines[2].startswith("Log in: https://app.example.com/login")
    assert sum("Log in" in line for line in lines) == 1


LAST = yaml.safe_load((ROLES / "application" / "tasks" / "closing.yml").read_text())


def speakers(hosts: dict[str, dict[str, Any]]) -> list[str]:
    """The hosts that have the last lines."""
    told: dict[str, Any] = {
        "hostvars": {
            name: {"inventory_hostname": name, **trusted(each)} for name, each in hosts.items()
        },
        "ansible_play_hosts_all": list(hosts),
        "ansible_check_mode": False,
    }
    return [
        name
        for name, each in told["hostvars"].items()
        if all(
            evaluate("application", when, "Debian", **{**each, **told}) for when in LAST[-2]["when"]
        )
    ]


def test_hosts_with_the_same_sites_say_it_once():
    blog = {"blog": {"source": "app", "domains": ["blog.example.com"]}}
    other = shop(domains=["shop.example.com"])
    assert speakers({"web1": shop(), "web2": shop(), "web3": other}) == ["web1", "web3"]
    # A host without the first application of the play has its own to say.
    assert speakers({"web1": shop(), "web2": {"applications": blog}}) == ["web1", "web2"]
    both = {"applications": {**shop()["applications"], **blog}}
    assert speakers({"web1": shop(), "web2": both, "web3": both}) == ["web1", "web2"]


def test_what_was_not_deployed_is_the_last_word_and_said_once() -> None:
    """Above the address and the log-in it is easily missed."""
    tasks = ROLES / "application" / "tasks"
    said = [
        path.name
        for path in tasks.glob("*.yml")
        if "__application_not_deployed" in path.read_text()
    ]
    assert said == ["closing.yml"]
    message = LAST[-1]["ansible.builtin.assert"]["success_msg"]
    assert message == "{{ __application_forgotten + __application_not_deployed }}"


def test_a_certificate_that_was_not_obtained_is_the_last_word_and_fails() -> None:
    """The site serves on, monitoring and everything else is done, and the run is no success."""
    said = "shop: 429, try again later\nshop.dev now serves a certificate, valid until then"
    result = {"failures": {"shop": "429"}, "msg": said, "failed": False}
    last = LAST[-1]

    def lines(**variables: Any) -> list[str]:
        given = {**trusted(toll_app()), **GIVEN, **variables}
        found = evaluate("application", "__application_not_obtained", "Debian", **given)
        fails = not evaluate(
            "application", last["ansible.builtin.assert"]["that"], "Debian", **given
        )
        assert fails is bool(found)
        sealed = yaml.safe_load((ROLES / "application/tasks/sealed.yml").read_text())[-1]["when"]
        assert last["ansible.builtin.assert"]["that"] in sealed, "nor is such a run sealed"
        return found

    assert lines() == lines(__certbot_result={"skipped": True}) == []
    assert lines(__certbot_result={"failed": False, "msg": "shop: obtained"}) == []
    assert lines(__certbot_result=result) == [
        "Everything else is done, but NOT OBTAINED:",
        *said.splitlines(),
    ]


@pytest.mark.parametrize(
    ("variables", "later"),
    [
        ({"__application_closes": True}, True),
        ({}, False),
        ({"__application_closes": True, "ansible_run_tags": ["certbot"]}, False),
        ({"__application_closes": True, "ansible_skip_tags": ["application"]}, False),
    ],
    ids=["site.yml", "a play of one's own", "some tags", "without some"],
)
def test_it_fails_at_once_where_nobody_has_the_last_word(
    variables: dict[str, Any], later: bool
) -> None:
    """A run for some tags has no closing: it would end well."""
    [task] = yaml.safe_load((ROLES / "application/tasks/certbot.yml").read_text())
    expression = task["vars"]["__certbot_fails_later"].strip("{} ")
    given = {"ansible_run_tags": ["all"], "ansible_skip_tags": [], **variables}
    assert evaluate("application", expression, "Debian", **given) is later


def test_an_application_that_left_the_inventory_is_named() -> None:
    """It goes on working on its host, and nobody is told of it any more."""
    trees = ["nginx", "toll-app", "toll-app-description", "blog", "blog-description"]
    given = {**trusted(toll_app()), "wsgi_host": {"trees": trees}, "inventory_hostname": "web1"}
    [line] = evaluate("application", "__application_forgotten", "Debian", **given)
    assert line.startswith("blog IS NOT DESCRIBED ANY MORE: its site is gone, its processes, ")
    assert "playbooks/remove.yml -e application=blog --limit web1." in line


@pytest.mark.parametrize(
    ("before", "more", "said"),
    [
        (
            "46cdea2abfb0",
            {},
            [
                f"{SITE} (release 0c742c8387b4 in place of 46cdea2abfb0)",
                "To go back: ansible-playbook -i inventory/shops playbooks/rollback.yml",
            ],
        ),
        (None, {}, [f"{SITE} (release 0c742c8387b4)"]),
        (
            "0c742c8387b4",
            {},
            [f"{SITE} (release 0c742c8387b4, live already)"],
        ),
        (
            "46cdea2abfb0",
            {"ansible_check_mode": True},
            [f"{SITE} (would go to release 0c742c8387b4)"],
        ),
    ],
    ids=["changed", "first", "the-same", "check-mode"],
)
def test_a_deploy_ends_with_what_serves_and_the_way_back(before, more, said):
    given = {
        **trusted(toll_app()),
        **{"__application_before": before, "__application_target": RELEASE["id"]},
        "ansible_inventory_sources": ["inventory/shops"],
        "ansible_check_mode": False,
        **more,
    }
    lines = evaluate("application", "__application_deployed | select", "Debian", **given)
    assert list(lines) == said


def test_one_of_several_applications_is_named_to_go_back() -> None:
    told = {
        name: {"source": "app", "domains": [f"{name}.example.com"]} for name in ("shop", "cafe")
    }
    given = {
        "applications": trusted(told),
        **{"__application_before": "46cdea2abfb0", "__application_target": RELEASE["id"]},
        "ansible_inventory_sources": ["inventory/shops"],
        "ansible_check_mode": False,
        "application": "cafe",
    }
    lines = evaluate("application", "__application_deployed | select", "Debian", **given)
    assert lines[0].startswith("cafe: https://cafe.example.com/ (release ")
    assert lines[1].endswith("playbooks/rollback.yml -e application=cafe")
