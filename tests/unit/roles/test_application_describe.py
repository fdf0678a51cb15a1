"""What is said where a description cannot be put together: the member's name, and no secret."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.vault import EncryptedString, VaultLib, VaultSecret, VaultSecretsContext
from ansible_collections.wsgi.host.plugins.filter.describing import describing
from ansible_collections.wsgi.host.plugins.plugin_utils import roles
from conftest import trusted

from .describing import describe, shop
from .render import FACTS

SECRET = "S3CRET"


def refused(variables: Mapping[str, Any]) -> str:
    """The message, of which no cause is left that Ansible would show with its line."""
    with pytest.raises(AnsibleActionFail) as caught:
        describe(variables, FACTS["Debian"])
    assert caught.value.__cause__ is None
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    message = str(caught.value)
    assert message.endswith("Nothing was changed")
    return message


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"environment": {"MODE": "fast", "A": "{{ nowhere }}"}},
            "applications.shop.environment.A cannot be computed ('nowhere' is undefined): define",
        ),
        ({"domains": ["a.example.com", "{{ nowhere }}"]}, "applications.shop.domains[1] cannot"),
        ({"keep_releases": "{{ mine + }}"}, "applications.shop.keep_releases cannot be computed ("),
    ],
)
def test_what_cannot_be_computed_is_named_as_it_was_written(
    members: dict[str, Any], message: str
) -> None:
    """It was `'nowhere' is undefined`, in an inventory of hundreds of lines."""
    assert message in refused(trusted(shop(**members)))
    # As somebody writes it who has several files.
    behind = {"applications": "{{ mine }}", "mine": {"shop": "{{ entry }}"}}
    entry = shop(**members)["applications"]["shop"]
    assert message in refused(trusted({**behind, "entry": entry}))


@pytest.mark.parametrize("text", [f"ab{{{{cd {SECRET}", f"{{{{ {SECRET} }}}}", f"{{{{ {SECRET}"])
@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("secrets.key", lambda text: {"secrets": {"fine": "f", "key": text}}),
        ("secrets.key.value", lambda text: {"secrets": {"key": {"value": text}}}),
        ("data.database_url", lambda text: {"data": {"database_url": text}}),
        (
            "data.seeds[1].stdin",
            lambda text: {"data": {"seeds": [{"name": "a"}, {"name": "b", "stdin": text}]}},
        ),
    ],
)
def test_a_secret_with_braces_is_named_and_not_shown(name: str, members: Any, text: str) -> None:
    message = refused(trusted(shop(**members(text))))
    assert f"applications.shop.{name} cannot be computed: define what it refers to, or" in message
    assert "write !unsafe before a value that has braces" in message


@pytest.mark.parametrize("password", [None, b"another"])
def test_a_value_that_no_password_decrypts_is_said_to_be_encrypted(
    password: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = EncryptedString(
        ciphertext=VaultLib([("default", VaultSecret(b"passphrase"))])
        .encrypt(SECRET, VaultSecret(b"passphrase"))
        .decode()
    )
    known = [("default", VaultSecret(password))] if password else []
    monkeypatch.setattr(VaultSecretsContext, "_current", VaultSecretsContext(known))
    words = "applications.shop.secrets.key is encrypted, and no password of this run decrypts it"
    assert words in refused(shop(secrets={"key": value}))
    told = trusted(shop(secrets={"key": "{{ vault_key }}"}))
    assert words in refused({**told, "vault_key": value})


def test_a_host_without_applications_has_none() -> None:
    assert describe({}, FACTS["Debian"])["described"] == {}
    assert describe({"applications": None}, FACTS["Debian"])["described"] is None


@pytest.mark.parametrize(
    ("role", "words"),
    [
        ("toll-app", "describes an application; did you mean toll_app?"),
        ("nginx", "describes an application (it has no tasks/describe.yml); toll_app does."),
        ("qqq", "describes an application; toll_app does."),
        # It would include itself.
        ("application", "describes an application; toll_app does."),
        ("no.such.role", "describes an application; toll_app does."),
    ],
)
def test_a_role_that_describes_none_is_named(role: str, words: str) -> None:
    """Ansible's own words were about files of roles, and those of the second lack even its name."""
    message = refused(trusted(shop(role=role)))
    assert message.startswith(f"applications.shop.role is {role}, which is no role that {words}")


def test_roles_elsewhere_describe_applications_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, configured = tmp_path / "project", tmp_path / "configured"
    for directory in (project / "roles" / "near", configured / "far", tmp_path / "own" / "beside"):
        (directory / "tasks").mkdir(parents=True)
        (directory / "tasks" / "describe.yml").write_text("---\n[]\n")
    (tmp_path / "own" / "application").mkdir()
    collection = tmp_path / "collection" / "roles" / "shop"
    (collection / "tasks").mkdir(parents=True)
    (collection / "tasks" / "describe.yaml").write_text("---\n[]\n")
    monkeypatch.setattr(roles.C.config, "get_config_value", lambda name: [str(configured)])
    monkeypatch.setattr(
        roles,
        "_get_collection_role_path",
        lambda name: ("shop", str(collection), "my.apps") if name == "my.apps.shop" else None,
    )
    named = ["near", "far", "beside", "my.apps.shop", "nowhere", "application"]
    found = describing(named, str(tmp_path / "own" / "application"), str(project))
    assert found == ["near", "far", "beside", "my.apps.shop"]
