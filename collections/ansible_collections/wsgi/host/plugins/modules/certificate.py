#!/usr/bin/python
"""Puts a certificate behind each name: a placeholder first, then the authority's."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate
short_description: Put a certificate behind each name, from an ACME authority or a placeholder
version_added: "0.1.0"
description:
  - A web server always reads C(<links_directory>/<name>/fullchain.pem) and C(privkey.pem). This
    module decides what that link leads to, for all certificates in one trip.
  - It leads to the valid certificate that covers most of the wanted names, whatever certbot calls it; a
    certificate that is as wanted is never obtained a second time under another name. Leading to
    certbot's C(live/<lineage>) means that a renewal needs no further step than a reload.
  - A copy of what a link leads to is kept beside the links. If somebody deletes the certificate in
    certbot, or certbot is killed while it exchanges the files, the copy serves until the authority has issued again.
  - Only if no name has a valid certificate is it a self-signed placeholder, so that the web server
    can start and answer the challenge.
  - certbot is run only for a certificate that is missing, has expired, differs from what is
    wanted in its names, its authority, its kind of key or its challenge, or could not be renewed, as one whose
    account is gone. What is merely due is left to the renewal timer.
  - Before the authority is asked, each name's challenge path is fetched from the host where a web server
    answers, because an
    authorisation that fails counts against a limit of the authority.
  - A certificate that cannot be obtained leaves each link as it was. The others are still
    obtained; the module fails at the end and says why for each, and what the web server serves for
    each name, for which it asks the web server (O(serving_address)).
  - Nothing below O(configuration_directory) is ever removed. A link for a certificate that is no
    longer listed is reported and left.
options:
  certificates:
    description: What is wanted.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the certificate, and of its directory in O(links_directory).
        type: str
        required: true
      domains:
        description: Names in the certificate.
        type: list
        elements: str
        required: true
  obtain:
    description: Obtain what is missing or differs. V(false) leads each link to what there is,
      without asking the authority, as before the web server starts.
    type: bool
    default: true
  ahead:
    description:
      - With O(obtain), obtain only what would otherwise go live without a certificate, before the web
        server is changed. This is a certificate of which certbot has nothing yet, with a name that no valid
        certificate covers, on a host whose web server already serves another of certbot's
        certificates and answers challenges from O(challenge.directory). Everything else is left
        for a later call.
      - If it fails, the module changes nothing.
    type: bool
    default: false
  serving_address:
    description: Where the web server answers over TLS, C(<host>:<port>). Empty if nobody can be
      asked, in which case a failure does not say what is served, and O(ahead) does nothing.
    type: str
    default: 127.0.0.1:443
  links_directory:
    description: Directory of the links, one per certificate.
    type: path
    required: true
  challenge:
    description: How the authority sees that the names are this host's.
    type: dict
    required: true
    suboptions:
      authenticator:
        description: certbot's plugin, such as C(webroot).
        type: str
        required: true
      arguments:
        description: What certbot is told besides on its command line.
        type: list
        elements: str
        default: []
      settings:
        description: What certbot's settings of a renewal have to say besides, as text.
        type: dict
        default: {}
      directory:
        description: Directory whose C(.well-known/acme-challenge) the web server serves on port 80
          for every name. Empty where no web server answers.
        type: path
        default: ""
      programs:
        description: What certbot runs for it as root, and root alone may therefore be able to change.
        type: list
        elements: path
        default: []
  directory_url:
    description: URL of the authority's ACME directory.
    type: str
    required: true
  email:
    description: Address for the account at the authority, used when it is registered; empty for
      none.
    type: str
    default: ""
  account_file:
    description: File with settings of certbot for the registration, such as C(eab-kid) and C(eab-hmac-key);
      empty for none.
    type: path
    default: ""
  profile:
    description: The authority's profile in which certificates are issued; empty for its default.
    type: str
    default: ""
  profile_required:
    description: Whether a certificate in another profile is refused.
    type: bool
    default: true
  key_type:
    description: Kind of key of the certificates.
    type: str
    choices: [ecdsa-p256, ecdsa-p384, rsa-2048, rsa-4096]
    default: ecdsa-p256
  probe:
    description: Fetch the challenge path of each name before the authority is asked. Not possible
      where the host cannot reach its own public address.
    type: bool
    default: true
  reload_argv:
    description: Command after which the web server serves what the links lead to. Empty leaves
      that to a later task, which finds RV(reload_pending).
    type: list
    elements: str
    default: []
  certbot:
    description: The program.
    type: str
    default: certbot
  configuration_directory:
    description: certbot's own directory.
    type: path
    default: /etc/letsencrypt
  fail:
    description: Whether the module fails if a certificate cannot be obtained. V(false) warns, so that what follows is
      done as well; a later task has to fail, for RV(failures).
    type: bool
    default: true
  state_directory:
    description: Where the rehearsal of the renewals leaves what failed, C(rehearsal.json). An account that the
      authority does not know any more is replaced, and what was obtained with it is obtained anew.
    type: path
    default: /var/lib/certificates
  reload_marker:
    description: File that exists from the moment a link or certificate changes until the web
      server has reloaded, so that an interrupted run is finished by the next one.
    type: path
    default: /run/certbot/reload-pending
requirements:
  - cryptography 38 or newer, for the Python that runs the module. Run it with certbot's own. In
    check mode it is not needed.
attributes:
  check_mode:
    support: full
    description: Reports what would change, and changes nothing.
  diff_mode:
    support: full
    description: Shows what changes, before and after.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: placeholder | Put a certificate behind each name before the web server starts
  wsgi.host.certificate:
    obtain: false
    certificates:
      - {name: shop, domains: [shop.example.com, www.shop.example.com]}
    links_directory: /etc/ssl/sites
    challenge:
      authenticator: webroot
      arguments: [--webroot-path, /var/www/acme-challenge]
      directory: /var/www/acme-challenge
    directory_url: https://acme-v02.api.letsencrypt.org/directory
  vars:
    ansible_python_interpreter: /opt/certbot/current/bin/python
"""

RETURN = r"""
certificates:
  description:
    - By name, what the link leads to after the task (V(issued); V(kept), a copy of a certificate that
      certbot no longer has; V(placeholder); or V(nothing) in check mode), with C(domains), C(issuer), C(serial) in hexadecimal and C(not_after) in UTC as far
      as they are known, and C(reason), why it is to be obtained, empty if it is as wanted.
  type: dict
  returned: success
pending:
  description: Names of the certificates that the authority has still to issue.
  type: list
  returned: success
reload_pending:
  description: Whether the web server has still to reload.
  type: bool
  returned: success
unlisted:
  description: Names that have a link and are not wanted. They stay, and certbot renews them.
  type: list
  returned: success
failures:
  description: By name, why a certificate could not be obtained.
  type: dict
  returned: if there are any
served:
  description: By domain, what the web server showed in a TLS handshake after the failure.
  type: dict
  returned: with RV(failures)
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.wsgi.host.plugins.module_utils.apphost import environment
from ansible_collections.wsgi.host.plugins.module_utils.certificates import (
    choosing,
    linking,
    obtaining,
    pairs,
    reporting,
    serving,
)
from ansible_collections.wsgi.host.plugins.module_utils.certificates.certbot import KEY_OPTIONS
from ansible_collections.wsgi.host.plugins.module_utils.certificates.model import CertificateError
from ansible_collections.wsgi.host.plugins.module_utils.certificates.run import Run
from ansible_collections.wsgi.host.plugins.module_utils.paths import (
    ForeignPathError,
    require_own,
    require_own_program,
)


def work(run: Run) -> dict[str, Any]:
    """Decides for each certificate, acts, and reports."""
    for wanted in run.wanted:
        choosing.look(run, wanted)
        why = f"; obtained because {wanted.reason}" if wanted.reason else ""
        was = reporting.describe_link(wanted, run.placeholders)
        run.before.append(f"{wanted.name}: {was}{why if run.params['obtain'] else ''}")
    if run.params["ahead"]:
        # Before any link is made: what fails here has changed nothing.
        obtaining.obtain_all(run, [each for each in run.wanted if obtaining.unproven(run, each)])
        if run.failures:
            return reporting.result(run, [])
    for wanted in run.wanted:
        if not wanted.planned:
            linking.connect(run, wanted)
    if not run.params["ahead"]:
        obtaining.obtain_all(run, run.wanted)
    if run.params["reload_argv"] and run.marker.exists():
        run.done.append("web server: reload")
        if not run.module.check_mode:
            serving.reload(run)
    listed = {wanted.name for wanted in run.wanted}
    unlisted = [name for name in linking.link_targets(run.links) if name not in listed]
    reporting.warn(run, unlisted)
    return reporting.result(run, unlisted)


def main() -> None:
    """Runs as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "certificates": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "domains": {"type": "list", "elements": "str", "required": True},
                },
            },
            "obtain": {"type": "bool", "default": True},
            "ahead": {"type": "bool", "default": False},
            "serving_address": {"type": "str", "default": "127.0.0.1:443"},
            "links_directory": {"type": "path", "required": True},
            "challenge": {
                "type": "dict",
                "required": True,
                "options": {
                    "authenticator": {"type": "str", "required": True},
                    "arguments": {"type": "list", "elements": "str", "default": []},
                    "settings": {"type": "dict", "default": {}},
                    "directory": {"type": "path", "default": ""},
                    "programs": {"type": "list", "elements": "path", "default": []},
                },
            },
            "directory_url": {"type": "str", "required": True},
            "email": {"type": "str", "default": ""},
            "account_file": {"type": "path", "default": ""},
            "profile": {"type": "str", "default": ""},
            "profile_required": {"type": "bool", "default": True},
            # Spelled out, or Ansible takes the name for a secret's.
            "key_type": {
                "type": "str",
                "choices": sorted(KEY_OPTIONS),
                "default": "ecdsa-p256",
                "no_log": False,
            },
            "probe": {"type": "bool", "default": True},
            "reload_argv": {"type": "list", "elements": "str", "default": []},
            "certbot": {"type": "str", "default": "certbot"},
            "configuration_directory": {"type": "path", "default": "/etc/letsencrypt"},
            "fail": {"type": "bool", "default": True},
            "state_directory": {"type": "path", "default": "/var/lib/certificates"},
            "reload_marker": {"type": "path", "default": "/run/certbot/reload-pending"},
        },
        supports_check_mode=True,
    )
    if not pairs.HAS_CRYPTOGRAPHY and not module.check_mode:
        module.fail_json(msg=missing_required_lib("cryptography"))
    run = Run(module)
    own = [str(run.links), str(run.configuration)]
    if run.params["challenge"]["directory"]:
        own.append(run.params["challenge"]["directory"] + "/.well-known/acme-challenge")
    try:
        # certbot writes there as root too, and gives what it writes the owner of what is above.
        for directory in own:
            require_own(directory, itself=True)
        for program in [] if module.check_mode else run.params["challenge"]["programs"]:
            require_own_program(program)
        result = work(run)
    except (CertificateError, ForeignPathError) as error:
        module.fail_json(msg=str(error))
    if run.failures:
        lines = [f"{name}: {text}" for name, text in run.failures.items()]
        obtained = [line for line in run.done if ": obtained for" in line]
        served = serving.served(run)
        looked = [f"{domain} now serves {text}." for domain, text in served.items()]
        result["msg"] = "\n".join([*lines, *looked, *obtained])
        result |= {"failures": run.failures, "served": served}
        if run.params["fail"]:
            module.fail_json(**result)
        module.warn(result["msg"])
    module.exit_json(**result)


if __name__ == "__main__":
    environment.apply()
    main()
