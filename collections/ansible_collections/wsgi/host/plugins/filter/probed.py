"""`wsgi.host.probed`: where clients ask a host's site, from its variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.wsgi.host.plugins.filter.sharing import described

DOCUMENTATION = r"""
name: probed
short_description: Say where clients ask a host's site
version_added: "0.1.0"
description:
  - Reads from a host's variables the addresses that are asked from outside, for C(monitoring_urls)
    of the role C(monitoring), and whether anybody outside could trust its certificate. What the
    host itself says of both goes before.
options:
  _input:
    description: Variables of the host, as C(hostvars[name]).
    type: dict
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
- name: Say where the site is asked
  ansible.builtin.debug:
    msg: "{{ hostvars[inventory_hostname] | wsgi.host.probed }}"
"""

RETURN = r"""
_value:
  description: C(urls) and C(applications), none where the host has no application, and C(verify).
  type: dict
"""

HTTPS_PORT = 443


def path(description: Mapping[str, Any]) -> str:
    """What says that the application can do its work."""
    health = description.get("health")
    return str(health.get("path") or "/") if isinstance(health, Mapping) else "/"


def probed(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Addresses of a host's site as clients ask for it, and whether to trust its certificate.

    Nobody trusts a certificate that a host signed itself, or that of a private or trial authority.
    """
    port = int(variables.get("nginx_https_port", HTTPS_PORT))
    suffix = "" if port == HTTPS_PORT else f":{port}"
    told = {
        name: description
        for name, description in described(variables).items()
        if isinstance(description, Mapping)
    }
    urls = [
        f"https://{description['domains'][0]}{suffix}{path(description)}"
        for description in told.values()
        if description.get("domains")
    ]
    applications = [
        {"name": name, "metrics": str(description.get("metrics") or "")}
        for name, description in told.items()
    ]
    trusted = (
        bool(variables.get("certbot_obtain", True))
        and not variables.get("certbot_ca_file")
        and "staging" not in str(variables.get("certbot_directory_url", ""))
    )
    return {
        "urls": list(variables.get("monitoring_urls") or urls),
        "applications": applications,
        "verify": bool(variables.get("monitoring_probe_verify", trusted)),
    }


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"probed": probed}
