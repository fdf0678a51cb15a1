"""Keeps what Jinja has compiled of this project's own templates, for all forks and all runs.

Ansible compiles a template each time that it meets it: in each task, for each host, in a fork that
ends with the task. A look at everything on one host compiles some 600 different texts 2900 times.
What was compiled is kept in a file of Ansible's home, which forks append to and the next run reads.

Only of templates that come with this project: those of an inventory may hold secrets.
Whatever is not as it has to be for this, such as a home that others can write to or another
ansible-core, is left as Ansible does it. See docs/decisions/0105.
"""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import jinja2
from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.release import __version__
from ansible_collections.wsgi.host.plugins.module_utils.paths import (
    ForeignPathError,
    require_own,
)

PLUGINS = Path(__file__).parents[1]
KEY_BYTES, LENGTH_BYTES, CHECK_BYTES = 16, 4, 8
# Then all is compiled anew; what a project of this size has takes 3 MB.
LARGEST_BYTES = 32_000_000
FORGOTTEN_SECONDS = 30 * 86_400
SETTINGS = ("DEFAULT_JINJA2_EXTENSIONS", "ALLOW_EMBEDDED_TEMPLATES")


def own_places() -> tuple[str, ...]:
    """The directories whose templates are this project's, each with a slash at its end."""
    places = [PLUGINS.parent]
    project = PLUGINS.parents[4]
    if (project / "host" / "apphost").is_dir():
        places += [project / "roles", project / "playbooks"]
    return tuple(f"{place}/" for place in places)


def version() -> str:
    """A digest of what decides what a text is compiled to, besides the text."""
    # Whether a filter wants the context is part of the code.
    filters = sorted((PLUGINS / "filter").glob("*.py"))
    found = [(each.name, each.stat().st_mtime_ns, each.stat().st_size) for each in filters]
    settings = [C.config.get_config_value(name) for name in SETTINGS]
    told = (__version__, jinja2.__version__, sys.version, settings, found)
    return hashlib.blake2b(repr(told).encode(), digest_size=KEY_BYTES).hexdigest()


def digest(data: bytes, size: int) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()


class Store:
    """A file of records: key, length, check, code. Each is appended with one call of the system."""

    def __init__(self, path: Path) -> None:
        """Read it. Raises OSError, or ForeignPathError where others could put code there."""
        self._codes: dict[bytes, bytes] = {}
        require_own(str(path.parent.absolute()), itself=True)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        found = os.fstat(self._file)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
            raise ForeignPathError(f"Others could put code into {path}.")
        if found.st_size > LARGEST_BYTES:
            os.ftruncate(self._file, 0)
        self._read = 0
        if self._learn() > 0:
            # A full disk, or a power cut, left a part of a record, and what follows is not found.
            os.ftruncate(self._file, self._read)
        for other in path.parent.glob("*.codes"):
            if other != path and other.stat().st_mtime < time.time() - FORGOTTEN_SECONDS:
                other.unlink(missing_ok=True)

    def _learn(self) -> int:
        """Read what was appended since; returns how many bytes at the end are no whole record."""
        content = os.pread(self._file, LARGEST_BYTES, self._read)
        whole = 0
        for key, code, whole in records(content):  # noqa: B007
            self._codes[key] = code
        self._read += whole
        return len(content) - whole

    def get(self, key: bytes) -> bytes | None:
        """What was compiled, by this fork's parent, by other forks or in another run."""
        if key not in self._codes and os.fstat(self._file).st_size > self._read:
            self._learn()
        return self._codes.get(key)

    def add(self, key: bytes, code: bytes) -> None:
        """Keep it for all. Where it cannot be written, it is compiled again."""
        record = key + len(code).to_bytes(LENGTH_BYTES, "big") + digest(key + code, CHECK_BYTES)
        with contextlib.suppress(OSError):
            os.write(self._file, record + code)


def records(content: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Key, code and end of each record, up to the first that is not whole."""
    at, head = 0, KEY_BYTES + LENGTH_BYTES + CHECK_BYTES
    while at + head <= len(content):
        key = content[at : at + KEY_BYTES]
        length = int.from_bytes(content[at + KEY_BYTES : at + KEY_BYTES + LENGTH_BYTES], "big")
        code = content[at + head : at + head + length]
        check = content[at + head - CHECK_BYTES : at + head]
        if len(code) != length or digest(key + code, CHECK_BYTES) != check:
            return
        at += head + length
        yield key, code, at


def keep() -> bool:
    """Have templates compiled once; returns whether that is possible here."""
    try:
        from ansible._internal._datatag._tags import Origin
        from ansible._internal._templating import _jinja_bits as engine

        environment, context = engine.AnsibleEnvironment, engine._TemplateCompileContext
        settings = engine._TEMPLATE_OVERRIDE_FIELD_NAMES
        ansibles = environment.compile
        if getattr(ansibles, "keeps", False):
            return True
        home = Path(C.config.get_config_value("ANSIBLE_HOME")) / "wsgi-host"
        store = Store(home / f"{version()}.codes")
    except (ImportError, AttributeError, KeyError, AnsibleError, ForeignPathError, OSError):
        return False
    places = own_places()

    def compile_once(
        self: Any, source: Any, name: Any = None, filename: Any = None, *more: Any, **named: Any
    ) -> CodeType:
        origin = Origin.get_tag(source) if isinstance(source, str) else None
        path = str(getattr(origin, "path", None) or "")
        if name or filename or more or named or not path.startswith(places):
            compiled: CodeType = ansibles(self, source, name, filename, *more, **named)
            return compiled
        now = context.current(optional=True)
        told = (
            str(source),
            now and now.escape_backslashes,
            [getattr(self, each) for each in settings],
        )
        key = digest(repr(told).encode(), KEY_BYTES)
        if kept := store.get(key):
            found: CodeType = marshal.loads(kept)
            return found
        compiled = ansibles(self, source)
        with contextlib.suppress(ValueError):
            store.add(key, marshal.dumps(compiled))
        return compiled

    compile_once.keeps = True  # type: ignore[attr-defined]
    environment.compile = compile_once
    return True
