"""The last lines of site.yml: where the site is, who can log in, what is still to be done."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from .render import ROLES, evaluate

RELEASE = {"id": "0c742c8387b4", "current": None}
GIVEN: dict[str, Any] = {
    "toll_app_domains": ["app.example.com", "www.example.com"],
    "inventory_hostname": "web1",
    "ansible_play_hosts_all": ["web1"],
    "hostvars": {"web1": {"inventory_hostname": "web1"}},
    "__toll_app_rolled_back": False,
    "__toll_app_release": RELEASE,
}


def closing(**variables: Any) -> str:
    lines = evaluate("toll_app", "__toll_app_closing | select", "Debian", **{**GIVEN, **variables})
    return "\n".join(lines)


def test_a_first_run_says_that_nobody_can_log_in_and_how_to_change_that():
    said = closing()
    assert said.startswith("The site: https://app.example.com/ (release 0c742c8387b4)\n")
    assert "Nobody can log in yet. Make the first user on web1: sudo toll-app flask toll" in said
    assert "Nobody is told when it breaks: set monitoring_enabled" in said
    assert "set toll_app_backup_command" in said
    assert "\n\n" not in said


def test_a_later_run_does_not_claim_what_it_does_not_know():
    said = closing(__toll_app_release={**RELEASE, "current": "0c742c8387b4"})
    assert "Nobody can log in yet" not in said
    assert "If there is no user yet" in said


def test_with_an_admin_it_says_where_the_password_is_and_not_which():
    said = closing(toll_app_admin_password="seen-7f3a-seen-7f3a", toll_app_admin_name="anna")
    assert "Log in: https://app.example.com/login as anna, with toll_app_admin_password" in said
    assert "seen-7f3a" not in said


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"monitoring_enabled": True}, "Nobody is told"),
        ({"toll_app_backup_command": ["/usr/bin/rsync"]}, "toll_app_backup_command"),
        ({"toll_app_backup": False}, "toll_app_backup_command"),
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


def test_what_was_not_deployed_is_the_last_word_and_said_once() -> None:
    """Above the address and the log-in it is easily missed."""
    tasks = ROLES / "toll_app" / "tasks"
    said = [path.name for path in tasks.glob("*.yml") if ": not_deployed.yml" in path.read_text()]
    assert said == ["closing.yml"]
    last = yaml.safe_load((tasks / "closing.yml").read_text())[-1]
    assert last["ansible.builtin.import_tasks"] == "not_deployed.yml"
