"""Descriptions of applications: what a role brings, what a person says of it, and the defaults."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from . import families


def entries(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """The applications that the inventory has for a host; empty where it has no dictionary."""
    found = variables.get("applications")
    return found if isinstance(found, Mapping) else {}


def in_full(description: Any) -> Any:
    """The description without what is short for something else."""
    if not isinstance(description, Mapping):
        return description
    full = dict(description)
    for name, spelled_out in SHORT.items():
        if name in full:
            full[name] = spelled_out(full[name])
    return full


def _source(told: Any) -> Any:
    return {"directory": told} if isinstance(told, str) else told


def _packages(told: Any) -> Any:
    return dict.fromkeys(families.names(), told) if isinstance(told, list) else told


def _redis(told: Any) -> Any:
    if isinstance(told, bool):
        return {"enabled": told}
    return {"enabled": True, **told} if isinstance(told, Mapping) else told


def _hooks(told: Any) -> Any:
    if not isinstance(told, Mapping):
        return told
    return {
        stage: {"command": hook} if isinstance(hook, list) else hook for stage, hook in told.items()
    }


def _data(told: Any) -> Any:
    if not isinstance(told, Mapping) or not isinstance(told.get("sqlite"), str):
        return told
    return {**told, "sqlite": [told["sqlite"]] if told["sqlite"] else []}


# Members that can be written shorter, and what each then means.
SHORT: dict[str, Callable[[Any], Any]] = {
    "source": _source,
    "packages": _packages,
    "redis": _redis,
    "hooks": _hooks,
    "data": _data,
}


def located(source: Any, project: str) -> Any:
    """A source whose paths on the control node begin at the root, or at the project's directory.

    Those of a repository begin at its root, as git writes them: without ./ and a slash at the end.
    """
    if not isinstance(source, Mapping):
        return source
    found = dict(source)
    if source.get("repository"):
        if isinstance(below := found.get("directory"), str) and below:
            plain = os.path.normpath(below)
            # What leads out of it is refused as it was written.
            if not plain.startswith(("/", "..")):
                found["directory"] = "" if plain == "." else plain
        return found
    for key in ("directory", "lock"):
        value = found.get(key)
        alone = key == "directory" or not found.get("directory")
        if isinstance(value, str) and value and alone:
            found[key] = os.path.normpath(os.path.join(project, os.path.expanduser(value)))
    return found


def _may_be_absent(option: Mapping[str, Any]) -> bool:
    return "default" not in option and not option.get("required")


def lock_of(source: Mapping[str, Any]) -> str:
    """The path of the lock file that a description names, below a repository or on its own."""
    if source["repository"] or not source["directory"] or not source["lock"]:
        return str(source["lock"])
    return os.path.join(source["directory"], source["lock"])


def merged(base: Any, own: Any) -> Any:
    """What a person says over what a role brings: dictionaries by their members, all else whole."""
    if not (isinstance(base, Mapping) and isinstance(own, Mapping)):
        return own
    result = dict(base)
    for key, value in own.items():
        result[key] = merged(base[key], value) if key in base else value
    return result


def filled(
    description: Mapping[str, Any],
    options: Mapping[str, Mapping[str, Any]],
    compute: Callable[[Any, Mapping[str, Any]], Any],
) -> dict[str, Any]:
    """The description with a value for everything that has a default.

    Members that no option names, and values of a wrong type, stay as they are: the check of the
    description says so under the name that the person wrote.

    Args:
        options: as in an argument specification; one with `values` in place of `options` is a
            dictionary whose keys are names of a person's, and each value has these options.
        compute: gives the value of a default, from the description as far as it is filled.
    """
    whole = dict(description)

    def fill(part: dict[str, Any], members: Mapping[str, Mapping[str, Any]]) -> None:
        for name, option in members.items():
            if name not in part and "default" in option:
                part[name] = compute(option["default"], whole)
            if name in part and part[name] is None and _may_be_absent(option):
                # How a person leaves out what a role brings.
                del part[name]
            inner = option.get("options")
            if "values" in option and isinstance(part.get(name), Mapping):
                # Its keys are names that a person chooses.
                part[name] = {
                    key: dict(item) if isinstance(item, Mapping) else item
                    for key, item in part[name].items()
                }
                for item in part[name].values():
                    if isinstance(item, dict):
                        fill(item, option["values"])
            elif inner and option.get("type") == "dict" and isinstance(part.get(name), Mapping):
                part[name] = dict(part[name])
                fill(part[name], inner)
            elif inner and option.get("type") == "list" and isinstance(part.get(name), list):
                part[name] = [
                    dict(item) if isinstance(item, Mapping) else item for item in part[name]
                ]
                for item in part[name]:
                    if isinstance(item, dict):
                        fill(item, inner)

    fill(whole, options)
    return whole


def certificate_name(domains: Sequence[str]) -> str:
    """One name for each set of domains, whatever their order.

    nginx goes over to new domains and their certificate in one reload, and back as well: see
    docs/decisions/0023.
    """
    names = sorted({domain.lower() for domain in domains})
    if len(names) == 1:
        return names[0]
    return f"{names[0][:200]}-{hashlib.sha256(','.join(names).encode()).hexdigest()[:8]}"


def site(
    description: Mapping[str, Any], links_directory: str, asking: Sequence[str] = ()
) -> dict[str, Any]:
    """The application's site, as an item of `nginx_sites`.

    Args:
        links_directory: where certbot's role has a directory for each certificate.
        asking: addresses of other hosts that ask for the health path.
    """
    name, told = description["name"], dict(description["site"])
    certificate = f"{links_directory}/{certificate_name(description['domains'])}"
    static = told.pop("static", [])
    # nginx's role says what is wrong with anything else.
    right = isinstance(static, list)
    if right:
        static = [
            {**item, "directory": os.path.join(f"/opt/{name}", str(item.get("directory", "")))}
            if isinstance(item, Mapping)
            else item
            for item in static
        ]
    if right and description["static"]:
        # Below each file's hash, the files of all releases on the host: see docs/decisions/0010.
        released = {"location": "/static/", "directory": f"/opt/{name}/static", "immutable": True}
        static.insert(0, released)
    locations = told.pop("locations", [])
    if isinstance(locations, list):
        locations = [
            {**item, "directory": os.path.join(f"/opt/{name}", str(item["directory"]))}
            if isinstance(item, Mapping) and item.get("directory")
            else item
            for item in locations
        ]
        locations = _with_health(told, locations, _plain(description["health"]["path"]), asking)
    if isinstance(told.get("cache"), Mapping):
        # The handover moves it: no release answers with what another one has said.
        told["cache"] = {"key_path": f"/opt/{name}/cache-key", **told["cache"]}
    # What balancers ask is always known, whatever else a person names.
    more = told.pop("health_paths", None)
    asked = {_plain(description["health"][key]) for key in ("path", "live_path")} - {""}
    # nginx's role says what is wrong with anything else.
    health = [*(more or []), *sorted(asked)] if more is None or isinstance(more, list) else more
    return {
        "name": name,
        "domains": description["domains"],
        "certificate": f"{certificate}/fullchain.pem",
        "certificate_key": f"{certificate}/privkey.pem",
        "upstream": f"unix:/run/gunicorn/{name}.sock",
        "static": static,
        "health_paths": health,
        "locations": locations,
        **told,
    }


def _plain(path: object) -> str:
    """The path as nginx compares it: without a query, and decoded."""
    return unquote(str(path).partition("?")[0])


def _with_health(
    site: Mapping[str, Any], locations: list[Any], path: str, asking: Sequence[str]
) -> list[Any]:
    """The locations with that of the health path, open to who looks after the host.

    As they are, where nobody is kept out there.
    """
    known = [item for item in locations if isinstance(item, Mapping)]
    own = next((item for item in known if item.get("exact") and item.get("path") == path), {})
    around = [
        item
        for item in known
        if not item.get("exact") and path.startswith(str(item.get("path") or "none"))
    ]
    base = own or max(around, key=lambda item: len(item["path"]), default={})
    whole = {**site, **{key: value for key, value in base.items() if value is not None}}
    if not any(whole.get(key) for key in ("basic_auth", "allow", "deny")):
        return locations
    opened = {"open_to_host": True, "open_to": list(asking), **base, "path": path, "exact": True}
    return [*(item for item in locations if item is not own), opened]


def closed(sites: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of those whose health path is open to some alone, whom the person has not named."""
    return [
        site["name"]
        for site in sites
        for each in (site["locations"] if isinstance(site["locations"], list) else ())
        if isinstance(each, Mapping) and each.get("open_to_host") and not each.get("open_to")
    ]


def credentials(description: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its secrets, as `gunicorn_systemd_credentials`."""
    found = [
        {"name": name, **value} if isinstance(value, Mapping) else {"name": name, "value": value}
        for name, value in description["secrets"].items()
    ]
    url, pooled = description["data"]["database_url"], description.get("database_url_pooled", "")
    if pooled:
        # The engine's own commands take the other one (apphost.sandbox).
        direct = {"name": "database_url_direct", "value": url}
        return [*found, {"name": "database_url", "value": pooled}, direct]
    return found + ([{"name": "database_url", "value": url}] if url else [])


def named(entries: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Workers or timers by their names, as a list of `gunicorn_systemd_background` or `_timers`."""
    return [{"name": str(name), **entry} for name, entry in entries.items()]


def database_hosts(url: str) -> list[str]:
    """Where a database of PostgreSQL is, by a URL; no host at all, and a path, are this host's."""
    parts = urlsplit(url)
    told = [parts.hostname or "", *re.findall(r"(?:^|&)host=([^&]+)", parts.query)]
    # Several of one database stand in a row.
    hosts = [host for each in told for host in unquote(each).split(",")]
    return [host for host in hosts if host and not host.startswith("/")]


def is_local(host: str) -> bool:
    """Whether a host of a URL, with or without a port, is the one that connects."""
    return bool(re.fullmatch(r"(localhost|127[.][0-9.]+|::1)(:[0-9]+)?", host))


def worker(description: Mapping[str, Any]) -> dict[str, Any]:
    """What follows for its web processes from the rest, whatever the inventory says for all."""
    return {
        # The one name that the application takes in any case.
        "check_host": description["domains"][0],
        **({"worker_class": "asgi", "threads": 1} if description["asgi"] else {}),
    }


def with_redis(description: Mapping[str, Any]) -> dict[str, Any]:
    """What its Redis adds to the rest: where it is, and that it is started first."""
    if not description["redis"]["enabled"]:
        return {}
    name, service = description["name"], description["service"]
    url = f"unix:///run/{name}-redis/redis.sock?db=0"
    return {
        "environment": {"REDIS_URL": url, **description["environment"]},
        "service": {**service, "after": [*service["after"], f"{name}-redis.service"]},
    }


def reach(description: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What the application has to reach, and the units that it starts after."""
    url = description["data"]["database_url"]
    hosts = database_hosts(url)
    remote = [host for host in hosts if not is_local(host)]
    network = "any" if remote else "local" if hosts else "none"
    wanted = description["network"]
    after = ["postgresql.service"] if url and not remote else []
    after += ["pgbouncer.service"] if after and description.get("database_url_pooled") else []
    return (network if wanted == "auto" else wanted), after


def reached(
    description: Mapping[str, Any], links_directory: str, port: object, public_port: object
) -> dict[str, Any]:
    """Where it is reached: `address`, `https_port`, `certificate`, and its notes about that.

    Args:
        links_directory: where certbot's role has a directory for each certificate.
        port: of nginx for HTTPS.
        public_port: the same as clients see it.
    """
    suffix = "" if str(public_port) == "443" else f":{public_port}"
    address = f"https://{description['domains'][0]}{suffix}/"
    notes = description["notes"]
    return {
        "address": address,
        "https_port": port,
        "certificate": description["site"].get("certificate")
        or f"{links_directory}/{description['certificate_name']}/fullchain.pem",
        "notes": (
            [str(line).replace("{address}", address) for line in notes]
            if isinstance(notes, list)
            else notes
        ),
    }
