"""Documentation of the action plugin wsgi.host.bundle, which runs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle
short_description: Build an application and its locked dependencies once, on the control node
description:
  - Makes one compressed archive of an application and of a ready C(site-packages) tree, for a
    Python version and an architecture that the control node need not have. The host that unpacks
    it with M(wsgi.host.release) needs no compiler, no pip and no package index.
  - The bundle's id is a hash of its inputs (lock file, application files, Python version,
    architecture), so it is known without building, and equal inputs are built once, for all
    hosts and all runs.
  - Runs on the control node only. It changes nothing on a host and so never reports a change.
options:
  name:
    description: What the bundle is called. Lower-case letters, digits and hyphens.
    type: str
    required: true
  lock:
    description:
      - Path of the lock file in requirements format. Every requirement is pinned with C(==) and
        has at least one C(--hash=sha256:...). Options such as C(--index-url) are refused, because
        the index belongs in the configuration of the control node.
    type: path
    required: true
  source:
    description:
      - Directory with the application. It becomes C(app/) of the release. Names that begin with a
        dot are left out, as is what O(exclude) names. A symbolic link is refused.
      - Left out for a bundle of dependencies only.
    type: path
  exclude:
    description: Names (shell patterns) of files and directories in O(source) that are not shipped.
    type: list
    elements: str
    default: [tests, instance, __pycache__, node_modules, "*.pyc", "*.egg-info", "*.sqlite3", "*.log"]
  python:
    description: Python version of the host, for example V(3.13).
    type: str
    required: true
  architecture:
    description: Processor architecture of the host.
    type: str
    choices: [x86_64, aarch64]
    required: true
  cache:
    description:
      - Directory that keeps built bundles. Those that no run asked for in 30 days are removed
        when another one is built.
      - Default is C(.cache/bundles) in the nearest directory above the playbook that holds an
        C(ansible.cfg) or is a git repository.
    type: path
  revision:
    description:
      - Take O(source), its lock file included, as it was at this git revision (commit, tag, branch)
        in place of the working tree. O(lock) has to be below O(source).
    type: str
    default: ""
  archive:
    description:
      - Build nothing, and take this archive, which the module built before, perhaps elsewhere. Its
        SHA-256 has to be O(archive_sha256), or what the record (C(.json)) beside it says.
      - A directory is looked through for the one archive that fits the host's Python and
        architecture.
    type: path
    default: ""
  archive_sha256:
    description: What the SHA-256 of O(archive) has to be.
    type: str
    default: ""
  build:
    description:
      - Commands that run one after the other in a copy of O(source) before it is packed, each as a list of words. What they
        make is part of the bundle and of its id.
      - The locked packages are installed for the control node's Python, and their programs come first in C(PATH). Of
        the environment only what leads to a network, to npm and to uv is there.
      - They run once for the same source, lock file and commands, and the results are kept in O(cache). In check mode they
        do not run; where there are no results the id is another one then.
    type: list
    elements: list
    default: []
  build_time_limit_seconds:
    description: Seconds that each of O(build) may take.
    type: int
    default: 600
  sdists:
    description:
      - Packages of the lock file that have no wheel. They are built from their locked source archives, which runs their code
        on the control node; of the environment only what leads to a network is there.
      - Only pure Python, since what a compiler makes is for the control node. What they need to be built is not locked.
    type: list
    elements: str
    default: []
  needs:
    description:
      - Requirements (PEP 508) that the lock file, or the archive, has to meet, because a host runs the bundle with them.
    type: list
    elements: str
    default: []
  variables:
    description:
      - What messages call O(revision), O(archive) and O(archive_sha256), by the names of these
        options. The variables of a role, say, that somebody has set.
    type: dict
    default: {}
notes:
  - Needs C(uv), taken from beside the running Python or from C(PATH).
  - The index, its certificate authority and the proxy are those that uv's own settings name
    (C(uv.toml), C(UV_*), C(SSL_CERT_FILE), C(HTTPS_PROXY)). Where these are silent, pip's
    settings hold (C(pip.conf), C(PIP_INDEX_URL), C(PIP_EXTRA_INDEX_URL), C(PIP_FIND_LINKS),
    C(PIP_CERT)).
  - Only wheels are used, for glibc 2.28 or newer, apart from O(sdists).
  - In check mode nothing is built; the id is returned nevertheless.
attributes:
  check_mode:
    support: full
    description: Gives the id and builds nothing.
  diff_mode:
    support: none
    description: Nothing on a host changes.
seealso:
  - module: wsgi.host.release
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: bundle | Build the application
  wsgi.host.bundle:
    name: toll-app
    lock: "{{ playbook_dir }}/../app/requirements.txt"
    source: "{{ playbook_dir }}/../app"
    python: "{{ ansible_facts['wsgi_host'].python.version }}"
    architecture: "{{ ansible_facts['wsgi_host'].architecture }}"
  register: shop_bundle

- name: bundle | Build the application as it was at a tag
  wsgi.host.bundle:
    name: toll-app
    lock: "{{ playbook_dir }}/../app/requirements.txt"
    source: "{{ playbook_dir }}/../app"
    revision: v1.4.0
    python: "{{ ansible_facts['wsgi_host'].python.version }}"
    architecture: "{{ ansible_facts['wsgi_host'].architecture }}"
  register: shop_bundle

- name: bundle | Build certbot, which is dependencies only
  wsgi.host.bundle:
    name: certbot
    lock: "{{ role_path }}/files/requirements.txt"
    python: "{{ ansible_facts['wsgi_host'].python.version }}"
    architecture: "{{ ansible_facts['wsgi_host'].architecture }}"
  register: __certbot_bundle
"""

RETURN = r"""
bundle:
  description: What M(wsgi.host.release) takes.
  returned: success
  type: dict
  contains:
    name:
      description: Name of the bundle.
      type: str
    id:
      description: Hash of the inputs, 12 hexadecimal digits.
      type: str
    content:
      description: >-
        Hash of the application and its lock file, 12 hexadecimal digits, the same for every Python
        version and architecture.
      type: str
    built_by:
      description: Who built the archive and where, null while it is not built.
      type: str
    archive:
      description: Path of the archive on the control node.
      type: str
    built:
      description: Whether the archive exists. False only in check mode.
      type: bool
    sha256:
      description: Hash of the archive, null while it is not built.
      type: str
    unpacked_bytes:
      description: Size of the unpacked files in bytes, null while they are not built.
      type: int
    python:
      description: Python version, for example 3.13.
      type: str
    architecture:
      description: Processor architecture.
      type: str
    revision:
      description:
        - Commit of the source (of the lock file where there is no source) when this content was
          first built, with C(-dirty) after it if the files differed from the commit. Null outside
          a git repository.
      type: str
    contents:
      description:
        - C(files), the hash of each file of the application, and C(packages), the version of each package.
          In check mode alone.
      type: dict
    lock_hash:
      description: SHA-256 of the lock file.
      type: str
"""
