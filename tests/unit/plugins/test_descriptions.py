"""Descriptions of applications: what is put together, filled in, and follows from them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.filter.bad_secrets import bad_secrets
from ansible_collections.wsgi.host.plugins.plugin_utils import descriptions
from ansible_collections.wsgi.host.plugins.plugin_utils.descriptions import (
    certificate_name,
    credentials,
    database_hosts,
    filled,
    in_full,
    located,
    merged,
    reach,
    reached,
    site,
)

WHOLE: dict[str, Any] = {
    "name": "shop",
    "domains": ["shop.example.com", "www.shop.example.com"],
    "site": {},
    "health": {"path": "/readyz", "live_path": ""},
    "static": "",
    "secrets": {},
    "network": "auto",
    "notes": ["Log in: {address}login"],
    "data": {"database_url": ""},
}


def whole(**members: Any) -> dict[str, Any]:
    return {**WHOLE, **members}


def test_what_a_person_says_goes_before_what_a_role_brings_member_by_member() -> None:
    base = {"health": {"path": "/readyz", "status": 200}, "domains": ["a"], "wsgi": "app:app"}
    own = {"health": {"status": 204}, "domains": ["b"], "backup": {"enabled": False}}
    assert merged(base, own) == {
        "health": {"path": "/readyz", "status": 204},
        "domains": ["b"],
        "wsgi": "app:app",
        "backup": {"enabled": False},
    }


@pytest.mark.parametrize("wrong", ["text", 7, None, ["a"]])
def test_a_value_of_another_type_stays_for_the_check_to_refuse(wrong: object) -> None:
    assert merged({"health": {"path": "/"}}, {"health": wrong}) == {"health": wrong}
    assert merged({"health": {}}, wrong) == wrong


def test_defaults_may_read_the_name_and_what_comes_before_them() -> None:
    options: dict[str, Any] = {
        "wsgi": {"type": "str", "default": "app:app"},
        "backup": {
            "type": "dict",
            "default": {},
            "options": {"directory": {"default": "copies of {name}"}, "keep": {"default": 7}},
        },
        "domains": {"type": "list", "required": True},
        "seeds": {"type": "list", "default": [], "options": {"key": {"default": ""}}},
    }

    def compute(default: Any, so_far: Any) -> Any:
        return default.format(name=so_far["name"]) if isinstance(default, str) else default

    told = {"name": "shop", "backup": {"keep": 3}, "seeds": [{"name": "a"}, "wrong"]}
    assert filled(told, options, compute) == {
        "name": "shop",
        "wsgi": "app:app",
        "backup": {"keep": 3, "directory": "copies of shop"},
        "seeds": [{"name": "a", "key": ""}, "wrong"],
    }
    # What was handed over is somebody else's.
    assert told == {"name": "shop", "backup": {"keep": 3}, "seeds": [{"name": "a"}, "wrong"]}


def test_a_wrong_type_is_left_as_it_is() -> None:
    options = {"backup": {"type": "dict", "options": {"keep": {"default": 7}}}}
    assert filled({"backup": "no"}, options, lambda default, _: default) == {"backup": "no"}


def test_a_source_in_short_is_its_directory() -> None:
    assert in_full({"source": "../shop"}) == {"source": {"directory": "../shop"}}
    assert in_full({"source": {"repository": "x"}}) == {"source": {"repository": "x"}}
    assert in_full("wrong") == "wrong"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ({"directory": "../shop"}, {"directory": "/srv/shop"}),
        ({"directory": "/opt/shop"}, {"directory": "/opt/shop"}),
        # Beside the application's files.
        (
            {"directory": "../shop", "lock": "uv.lock"},
            {"directory": "/srv/shop", "lock": "uv.lock"},
        ),
        ({"lock": "locks/pgadmin.txt"}, {"lock": "/srv/project/locks/pgadmin.txt"}),
        # Below the root of the repository.
        ({"repository": "r", "directory": "web"}, {"repository": "r", "directory": "web"}),
        ({"repository": "r", "directory": "./web/"}, {"repository": "r", "directory": "web"}),
        ({"repository": "r", "directory": "./"}, {"repository": "r", "directory": ""}),
        ({"repository": "r", "directory": "a/../../b"},) * 2,
        ({"directory": ""}, {"directory": ""}),
        ("wrong", "wrong"),
        ({"directory": 7}, {"directory": 7}),
    ],
)
def test_paths_begin_at_the_project(source: Any, found: Any) -> None:
    assert located(source, "/srv/project") == found


def test_a_certificate_has_one_name_for_each_set_of_domains() -> None:
    """nginx goes over to new names and their certificate in one reload: decision 0023."""
    assert certificate_name(["Shop.example.com"]) == "shop.example.com"
    both = certificate_name(["b.example.com", "a.example.com"])
    assert both == certificate_name(["a.example.com", "B.example.com"])
    assert both.startswith("a.example.com-")
    assert both != certificate_name(["a.example.com", "c.example.com"])
    assert len(certificate_name(["a" * 250, "b"])) < 255


def test_the_site_has_the_members_of_the_description() -> None:
    found = site(
        whole(site={"max_body_size": "50m", "static": [{"directory": "current/app/public"}]}),
        "/etc/ssl/sites",
    )
    name = certificate_name(WHOLE["domains"])
    assert found == {
        "name": "shop",
        "domains": WHOLE["domains"],
        "certificate": f"/etc/ssl/sites/{name}/fullchain.pem",
        "certificate_key": f"/etc/ssl/sites/{name}/privkey.pem",
        "upstream": "unix:/run/gunicorn/shop.sock",
        # A directory below `current` is of the live release.
        "static": [{"directory": "/opt/shop/current/app/public"}],
        "locations": [],
        "health_paths": ["/readyz"],
        "max_body_size": "50m",
    }


def test_a_location_can_have_a_directory_of_the_release() -> None:
    files = {"path": "/docs/", "directory": "current/app/docs"}
    found = site(whole(site={"locations": [files, {"path": "/api/"}]}), "/x")["locations"]
    assert found == [{**files, "directory": "/opt/shop/current/app/docs"}, {"path": "/api/"}]


@pytest.mark.parametrize("rule", [{"allow": ["192.0.2.1"]}, {"basic_auth": {"users": [1]}}])
def test_who_looks_after_a_site_may_ask_it(rule: dict[str, Any]) -> None:
    """A deploy is judged through nginx, and would fail with 401 or 403; balancers ask there too."""
    watch = ["192.0.2.9"]
    opened = {"path": "/readyz", "exact": True, "open_to_host": True, "open_to": watch}

    def locations(health: str = "/readyz", **members: Any) -> list[dict[str, Any]]:
        told = whole(site=members, health={"path": health, "live_path": ""})
        found: list[dict[str, Any]] = site(told, "/x", watch)["locations"]
        return found

    assert locations(**rule) == [opened]
    assert locations("/readyz?full=1", **rule) == [opened]
    # It has what the location around it has, which may be what keeps others out.
    around = {"path": "/r", "max_body_size": "1k", **rule}
    root = {"path": "/"}
    assert locations(locations=[root, around]) == [root, around, {**around, **opened}]
    # Who describes the path has the last word.
    own = {"path": "/readyz", "exact": True, "open_to": ["192.0.2.7"]}
    assert locations(**rule, locations=[own]) == [{**opened, **own}]
    assert descriptions.closed([site(whole(site={**rule, "locations": [own]}), "/x")]) == []
    assert descriptions.closed([site(whole(site=rule), "/x"), site(whole(), "/x")]) == ["shop"]
    free = {"path": "/readyz", "exact": True, "allow": [], "basic_auth": {}}
    assert locations(**rule, locations=[free]) == [free]


def test_static_files_of_all_releases_come_first() -> None:
    (released,) = site(whole(static="public"), "/x")["static"]
    assert released == {"location": "/static/", "directory": "/opt/shop/static", "immutable": True}


def test_secrets_become_credentials() -> None:
    told = whole(
        secrets={"key": {"random_bytes": 32}, "token": "t"},
        data={"database_url": "postgresql://shop:p@db/shop"},
    )
    assert credentials(told) == [
        {"name": "key", "random_bytes": 32},
        {"name": "token", "value": "t"},
        {"name": "database_url", "value": "postgresql://shop:p@db/shop"},
    ]


@pytest.mark.parametrize(
    ("url", "hosts", "network", "after"),
    [
        ("", [], "none", []),
        ("postgresql:///shop", [], "none", ["postgresql.service"]),
        ("postgresql:///shop?host=/run/postgresql", [], "none", ["postgresql.service"]),
        ("postgresql://u:p@localhost/shop", ["localhost"], "local", ["postgresql.service"]),
        ("postgresql://127.0.0.1:5433/shop", ["127.0.0.1"], "local", ["postgresql.service"]),
        ("postgresql://u:p@db.example.com/shop", ["db.example.com"], "any", []),
        ("postgresql:///shop?host=db.example.com", ["db.example.com"], "any", []),
        ("postgresql:///shop?x=1&host=%2Frun%2Fpg", [], "none", ["postgresql.service"]),
    ],
)
def test_the_database_says_what_is_reached(
    url: str, hosts: list[str], network: str, after: list[str]
) -> None:
    assert database_hosts(url) == hosts
    assert reach(whole(data={"database_url": url})) == (network, after)
    # What a person says goes before.
    assert reach(whole(data={"database_url": url}, network="any"))[0] == "any"


def test_the_address_has_the_port_that_clients_see() -> None:
    told = whole(certificate_name="c")
    assert reached(told, "/etc/ssl/sites", 443, 443) == {
        "address": "https://shop.example.com/",
        "https_port": 443,
        "certificate": "/etc/ssl/sites/c/fullchain.pem",
        "notes": ["Log in: https://shop.example.com/login"],
    }
    assert reached(told, "/x", 443, 8443)["address"] == "https://shop.example.com:8443/"


def test_secrets_that_cannot_be_right_are_named_without_their_value() -> None:
    told: dict[str, Any] = {
        "good": "value",
        "made": {"random_bytes": 16},
        "short": {"random_bytes": 15},
        "flag": {"random_bytes": True},
        "more": {"random_bytes": 32, "x": 1},
        "lines": "a\nb",
        "empty": "",
        "number": 7,
        "nothing": None,
    }
    assert bad_secrets(told) == ["short", "flag", "more", "lines", "empty", "number", "nothing"]


def test_the_lock_file_is_where_the_source_is() -> None:
    lock_of = descriptions.lock_of
    assert lock_of({"repository": "", "directory": "/s", "lock": "uv.lock"}) == "/s/uv.lock"
    assert lock_of({"repository": "", "directory": "/s", "lock": ""}) == ""
    assert lock_of({"repository": "r", "directory": "web", "lock": "uv.lock"}) == "uv.lock"
    assert lock_of({"repository": "", "directory": "", "lock": "/l.txt"}) == "/l.txt"
