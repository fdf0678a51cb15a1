"""`wsgi.host.sites`: sites of nginx in full, as the role's templates print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: sites
short_description: Put sites of nginx in full
version_added: "0.1.0"
description:
  - Fills in what a site and its locations leave out, and says of each location what it is, so that
    a template only has to print it.
  - A location takes from its site what it leaves out, except limits that its site has for requests
    with a key.
positional: defaults, limits
options:
  _input:
    description: The sites, as in C(nginx_sites).
    type: list
    elements: dict
    required: true
  defaults:
    description: What a site leaves out.
    type: dict
    required: true
  limits:
    description: The limits of a client where neither the site nor the location has its own.
    type: dict
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
__nginx_sites: "{{ nginx_sites | wsgi.host.sites(__nginx_site_defaults, __nginx_limits) }}"
"""

RETURN = r"""
_value:
  description:
    - The sites with all members. C(places) are the locations that say something of what they serve,
      C(pools) the upstreams, C(zones) what counts clients, C(user_files) the files of users, and
      C(watched) the places that are open to who looks after the host, each with a C(number).
  type: list
  elements: dict
"""

# What a location has from its site unless it says otherwise.
INHERITED = ("websockets", "basic_auth", "allow", "deny", "upstream_keepalive")
# What the site's server says for all its locations.
OF_THE_SERVER = (
    "max_body_size",
    "read_timeout_seconds",
    "connect_timeout_seconds",
    "body_timeout_seconds",
)
SERVER = {"weight": 1, "down": False, "backup": False}
REDIRECT = {"status": 302, "keep_path": False}
# What a location leaves out.
PLACE: dict[str, Any] = {
    "exact": False,
    "directory": "",
    "immutable": False,
    "redirect": {},
    "open_to_host": False,
    "open_to": [],
    "number": "",
    "extra": "",
    "cached": False,
}
# What a site or a location is for, one of these at most.
PURPOSES = ("upstream", "upstreams", "redirect", "directory")
FAULTS = (
    "two_minded",
    "twice",
    "backups_only",
    "open_passwords",
    "open_certificates",
    "unasked_certificates",
    "open_directories",
    "circles",
)


def sites(
    given: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any], limits: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the sites in full."""
    return [_site(number, site, defaults, limits) for number, site in enumerate(given, 1)]


def _site(
    number: int, site: Mapping[str, Any], defaults: Mapping[str, Any], limits: Mapping[str, Any]
) -> dict[str, Any]:
    whole = {**defaults, **_said(site), "number": number}
    whole["pools"], whole["zones"], whole["user_files"], whole["watched"] = [], [], [], []
    whole["cache"] = {**defaults["cache"], **_said(site.get("cache") or {})}
    own: dict[str, Any] = {key: whole[key] for key in INHERITED}
    own["pool"] = whole["pool"] = _pool(whole, whole["name"], whole)
    own["users"] = _users(whole, whole["name"], whole["basic_auth"])
    own["zone"], own["limits"] = "", {**limits, **_said(whole["limits"])}
    if _said(whole["limits"]):
        own["zone"] = _zone(whole, whole["name"], own["limits"])
    files = [{**static, "path": static["location"]} for static in whole["static"]]
    places = [_place(whole, own, each, "", limits) for each in files]
    for number, each in enumerate(whole["locations"], 1):
        places.append(_place(whole, own, each, f"{whole['name']}~{number}", limits))
    if not any(place["path"] == "/" and not place["exact"] for place in places):
        root = {"path": "/", "redirect": whole["redirect"]}
        places.append(_place(whole, own, root, "", limits))
    for path in whole["cache"]["locations"]:
        _keep_answers(places, path)
    return {**whole, "places": places}


def _keep_answers(places: list[dict[str, Any]], path: str) -> None:
    """Have the answers below a path kept: by the place of that path, or one as that around it."""
    around = [place for place in places if not place["exact"] and path.startswith(place["path"])]
    place = max(around, key=lambda each: len(each["path"]))
    if place["kind"] != "application":
        return
    if place["path"] == path:
        place["cached"] = True
    else:
        # It counts in the same zones.
        places.insert(0, {**place, "path": path, "match": "^~ ", "cached": True})


def _place(
    site: dict[str, Any],
    own: Mapping[str, Any],
    given: Mapping[str, Any],
    name: str,
    limits: Mapping[str, Any],
) -> dict[str, Any]:
    """A location, and what it needs beside it. `name` is that of its own upstream, zones, users."""
    given = _said(given)
    place = {**PLACE, **dict.fromkeys(OF_THE_SERVER, ""), **own, **given}
    if given.get("upstream") or given.get("upstreams"):
        place["pool"] = _pool(site, name, {**place, "upstreams": given.get("upstreams", [])})
    if "basic_auth" in given:
        place["users"] = _users(site, name, given["basic_auth"])
    place["redirect"] = _redirect(place["redirect"])
    place["kind"] = (
        "redirect"
        if place["redirect"]
        else "files"
        if place["directory"]
        else "application"
        if place["pool"]
        else "nothing"
    )
    if _said(given.get("limits", {})):
        place["limits"] = {**own["limits"], "key_header": "", **_said(given["limits"])}
        place["zone"] = _zone(site, name, place["limits"])
    elif place["kind"] == "files":
        place["zone"], place["limits"] = "", _of_files(limits)
    # A connection that stays open says nothing of how much a client asks for.
    said = {**_said(site["limits"]), **_said(given.get("limits", {}))}
    if place["kind"] == "application" and place["websockets"] and "connections" not in said:
        place["limits"] = {**place["limits"], "connections": limits["websockets"]}
        place["connections_zone"] = "websockets"
    elif place["zone"]:
        place["connections_zone"] = f"{place['zone']}.connections"
    else:
        place["connections_zone"] = "downloads" if place["kind"] == "files" else "connections"
    place["match"] = "= " if place["exact"] else "" if place["path"] == "/" else "^~ "
    if place["open_to_host"] or place["open_to"]:
        site["watched"].append(place)
        place["number"] = f"{site['number']}_{len(site['watched'])}"
    return place


def _redirect(told: Mapping[str, Any]) -> dict[str, Any]:
    """A redirect in full; empty without one."""
    if not told:
        return {}
    whole = {**REDIRECT, **_said(told)}
    if whole["keep_path"] and "to" in whole:
        # A path begins with a slash. Browsers take two at the beginning for a host's name.
        whole["to"] = str(whole["to"]).rstrip("/")
    return whole


def _said(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members that are not null, which is a way to leave one out."""
    return {name: value for name, value in members.items() if value is not None}


def _of_files(limits: Mapping[str, Any]) -> dict[str, Any]:
    """Files cost next to nothing, and a page has many."""
    return {
        **limits,
        "rate": "unlimited",
        "key_header": "",
        "connections": limits["downloads"],
    }


def _pool(site: dict[str, Any], name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """The upstream of a site or of a location; empty without one."""
    servers = list(told["upstreams"]) or (
        [{"address": told["upstream"]}] if told["upstream"] else []
    )
    if not servers:
        return {}
    pool = {
        "name": name,
        "servers": [{**SERVER, **server} for server in servers],
        "keepalive": told["upstream_keepalive"],
    }
    site["pools"].append(pool)
    return pool


def _users(site: dict[str, Any], name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """Who has to log in; empty for anybody."""
    if not told.get("users"):
        return {}
    users = {"name": name, "users": told["users"]}
    site["user_files"].append(users)
    return users


def _zone(site: dict[str, Any], name: str, limits: Mapping[str, Any]) -> str:
    site["zones"].append({"name": name, "limits": limits})
    return name


def site_faults(whole: Sequence[Mapping[str, Any]], behind_proxy: bool) -> dict[str, list[str]]:
    """What cannot be meant as it is written, by what is wrong: names of sites, with a path.

    Args:
        whole: the sites in full.
        behind_proxy: whether TLS may end before nginx.
    """
    found: dict[str, list[str]] = {name: [] for name in FAULTS}
    for site in whole:
        parts = [(site["name"], site), *((site["name"] + p["path"], p) for p in site["places"])]
        plain = not site["certificate"] or site["http"] == "serve"
        asked = bool(site["client_certificates"])
        for where, part in parts:
            faults = {
                "two_minded": sum(bool(part.get(key)) for key in PURPOSES) > 1,
                "backups_only": bool(part.get("upstreams"))
                and all(server.get("backup") for server in part["upstreams"]),
                "open_passwords": bool(part.get("users")) and plain and not behind_proxy,
                "open_certificates": part is site and asked and (plain or behind_proxy),
                "unasked_certificates": bool(part.get("client_certificate")) and not asked,
                "circles": part is not site and part["redirect"].get("to") == "",
                "open_directories": bool(part.get("directory"))
                and not part["exact"]
                and not part["path"].endswith("/"),
            }
            for name, wrong in faults.items():
                found[name] += [where] * wrong
        paths = [place["match"] + place["path"] for place in site["places"]]
        for path in site["private_locations"]:
            paths += [f"= {path}", f"^~ {path}/"]
        seen = [path.removeprefix("^~ ") for path in paths]
        found["twice"] += [
            site["name"] + path.removeprefix("= ")
            for path in dict.fromkeys(seen)
            if seen.count(path) > 1
        ]
    return found


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"sites": sites, "site_faults": site_faults}
