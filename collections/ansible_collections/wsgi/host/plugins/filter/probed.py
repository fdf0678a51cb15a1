"""`wsgi.host.probed`: where clients ask a host's site, from its variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DOCUMENTATION = r"""
name: probed
short_description: Say where clients ask a host's site
version_added: "1.2.0"
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
  description: C(urls), none where the host has no C(toll_app_domains), and C(verify).
  type: dict
"""

HTTPS_PORT = 443


def probed(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Addresses of a host's site as clients ask for it, and whether to trust its certificate.

    Nobody trusts a certificate that a host signed itself, or that of a private or trial authority.
    """
    port = int(variables.get("nginx_https_port", HTTPS_PORT))
    urls = [
        f"https://{domain}{'' if port == HTTPS_PORT else f':{port}'}/readyz"
        for domain in (variables.get("toll_app_domains") or [])[:1]
    ]
    trusted = (
        bool(variables.get("certbot_obtain", True))
        and not variables.get("certbot_ca_file")
        and "staging" not in str(variables.get("certbot_directory_url", ""))
    )
    return {
        "urls": list(variables.get("monitoring_urls") or urls),
        "verify": bool(variables.get("monitoring_probe_verify", trusted)),
    }


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"probed": probed}
