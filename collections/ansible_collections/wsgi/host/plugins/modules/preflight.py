#!/usr/bin/python
"""Documentation of the action `wsgi.host.preflight`, which runs on the control node alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Check a role's variables and the host before anything is changed
version_added: "0.1.0"
description:
  - Reports every problem at once, each with the variable, the value found and the remedy.
  - The types, choices, required variables and keys come from C(meta/argument_specs.yml) of the role. A
    value has to be of its type as it stands, since the role's templates get it as it stands. Text that
    could be converted is refused with a remedy; Ansible's own validation would convert a copy.
  - A variable that starts with the role's name and is not in the specification is refused with the
    nearest real name. So is a name that is two typing errors at most from a variable that nobody has set,
    such as C(ngnix_http_port).
  - Values of options marked C(no_log), and what a vault holds, are never shown.
  - Where a role makes another role's variables of its own, it says so in C(__<role>_origins), such as
    C(__nginx_origins={'nginx_sites[0].domains':'shop_domains','nginx_sites[1:]':'shop_more_sites'}).
    Messages then use the name that a person wrote.
  - Refuses a host whose family of systems (C(families/<family>.yml) of this collection) has no variables of the role,
    where another family has some.
  - Calls M(wsgi.host.probe) and sets its fact C(wsgi_host) unless this play has done so, and makes no
    other trip to the host. Never changes anything, in check mode or out of it.
options:
  role:
    description: The role. It is the one that the task belongs to, or lies beside it or in the roles path.
    type: str
    required: true
  formats:
    description: >-
      Format by path, or the range of a number, both ends included, such as C(1..60). A C(*) in a path
      stands for each item of a list or each value of a dictionary. The formats are C(absolute_path),
      C(address), C(address_in_network) (such as C(192.0.2.20/24)), C(body_size) (nginx's), C(calendar) (C(OnCalendar=)), C(domain), C(email),
      C(endpoint) (C(ip:port), C([ip]:port) or C(unix:/path)), C(host_name), C(line) (any text in one
      line), C(local_path) (on the control node), C(name), C(network), C(password), C(port), C(postgresql_url),
      C(secret_key), C(server) (C(host:port)), C(sha256), C(system_name) (of a user or group),
      C(systemd_size), C(unit), C(url), C(url_path) and C(wildcard_domain). With C(?) behind it empty text
      passes too. A value that equals the specification's default is not held against its format.
    type: dict
    default: {}
  rules:
    description: >-
      What has to hold across variables. A rule is left out as long as a variable in it has a problem of
      its own. Its texts are templates that may use the fact C(wsgi_host).
    type: list
    elements: dict
    default: []
    suboptions:
      that: {description: "The condition, written as for C(when).", type: raw, required: true}
      variable: {description: The variable that the message is about., type: str, required: true}
      problem: {description: "What is wrong, a clause such as C(is also nginx_http_port).", type: str, required: true}
      remedy: {description: "What to do, in the imperative.", type: str, required: true}
  each:
    description: >-
      Rules for each of C(entries), a dictionary that is made of the variable C(variable). An entry is C(as) in their templates,
      and its key C(name_as); C(variable) of a rule is a member of the entry.
    type: dict
    default: {}
  values:
    description: >-
      Files of the role with the options of a dictionary's entries, as in an argument specification, by the dictionary's name.
    type: dict
    default: {}
  computed:
    description: >-
      Values that take the place of the variables' own, by the variables' names, such as descriptions in full for those that
      somebody wrote in short. They hold whatever the precedence of the variable, and so with C(-e) as well.
    type: dict
    default: {}
  short_names:
    description: >-
      Variables without the role's prefix that it takes from the command line, such as C(release). A name that is two
      typing errors at most from one of them is refused, unless that one is set as well.
    type: list
    elements: str
    default: []
  free_disk_mib:
    description: >-
      MiB that have to be free by path. What stands for paths on one file system is added up.
    type: dict
    default: {}
  executable:
    description: Paths that programs run from. One on a file system mounted with C(noexec) is refused.
    type: list
    elements: path
    default: []
  modules:
    description: Modules that the host needs and that the control node may not have, by their whole name.
    type: list
    elements: str
    default: []
  ports:
    description: >-
      Ports that the role is going to listen on. One that another program holds is refused.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: >-
          A port, an C(ip:port), or a list of them. With an address, only a listener on the same address or
          on all addresses is in the way. Entries that start with C(unix:) are passed over.
        type: raw
        required: true
      programs:
        description: Names of programs or units that may hold the port, because they are the role's own.
        type: list
        elements: str
        default: []
      variable:
        description: The variable that the message is about; by default the one that O(ports[].port) reads.
        type: str
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Shows no differences.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: preflight | Check the variables and the host
  wsgi.host.preflight:
    role: nginx
    formats:
      nginx_http_port: port
      nginx_sites.*.domains.*: domain
    rules:
      - that: nginx_http_port != nginx_https_port
        variable: nginx_https_port
        problem: is also nginx_http_port
        remedy: use different ports for HTTP and HTTPS
    free_disk_mib: {/var: 200}
    ports:
      - {port: "{{ nginx_http_port }}", programs: [nginx]}
"""

RETURN = r"""
ansible_facts:
  description: The fact C(wsgi_host) of M(wsgi.host.probe).
  type: dict
  returned: when this play had not set it yet
"""
