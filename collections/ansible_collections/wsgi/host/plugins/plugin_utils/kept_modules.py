"""Modules of this collection that stay on the host, so that a task sends what it wants and no code.

Ansible sends each task's module with all that it imports (some 200 kB), and the host's Python
compiles it anew: 0.1 s on the control node and 0.1 to 0.2 s on the host, in each task. Here the
modules are sent once and lie below /run, for root alone, with their byte code. A host that was
started anew, or a control node with other code, sends them again: the name of the place is a digest
of what is in it.

Whatever is not as it has to be for this, such as another user than root, goes Ansible's own way.
See docs/decisions/0042.
"""

from __future__ import annotations

import ast
import base64
import fcntl
import functools
import hashlib
import inspect
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import ansible
from ansible import constants as C
from ansible.module_utils._internal._ansiballz import _loader
from ansible.module_utils.common.json import Direction, get_module_encoder
from ansible.plugins.action import ActionBase
from ansible.release import __version__

from . import launcher

COLLECTION = "wsgi.host"
PLUGINS = Path(__file__).parents[1]
OWN = f"ansible_collections/{COLLECTION.replace('.', '/')}/plugins"
# Where the two trees that modules import from are on the host, and where they are here.
TREES = {
    "ansible/module_utils": Path(ansible.__file__).parent / "module_utils",
    OWN: PLUGINS,
}
# What Ansible runs a module with. How arguments and answers are written is looked up by name there.
ENGINE = (
    "ansible/module_utils/basic.py",
    launcher.ENGINE,
    "ansible/module_utils/_internal/_json/_profiles/_module_legacy_c2m.py",
    "ansible/module_utils/_internal/_json/_profiles/_module_legacy_m2c.py",
)
PROFILE = "legacy"
# The launcher calls it by these.
EXPECTED = ["json_params", "profile", "module_fqn", "modlib_path", "extensions", "init_globals"]
# What comes with a task: its arguments, all modules as well, or what Ansible sends.
NO_CODE, WHOLE, ANSIBLES = "no code", "whole", "Ansible's"
# Settings of Ansible that its own way heeds.
INTERPRETER, OPEN_FILES = "INTERPRETER_PYTHON", "PYTHON_MODULE_RLIMIT_NOFILE"


# What is sent ------------------------------------------------------------------------------------


def own_files() -> list[Path]:
    """The modules of this collection and what they import from it."""
    return sorted(
        path
        for folder in ("modules", "module_utils")
        for path in _walk(PLUGINS / folder)
        if path.suffix == ".py"
    )


def _walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, also where a link leads to another one."""
    for directory, _, names in os.walk(folder, followlinks=True):
        yield from (Path(directory) / name for name in names)


def digest() -> str:
    """What tells these modules from others: their text, the launcher's, and Ansible's version."""
    found = hashlib.sha256(f"{__version__}\n".encode())
    for path in [*own_files(), Path(launcher.__file__), Path(__file__)]:
        content = path.read_bytes()
        found.update(f"{path.name} {len(content)}\n".encode() + content)
    return found.hexdigest()[:32]


def contents() -> dict[str, bytes]:
    """Every file that is sent, by its place below the root of the archive."""
    modules = sorted((PLUGINS / "modules").glob("*.py"))
    waiting = [*ENGINE, *(f"{OWN}/modules/{path.name}" for path in modules)]
    found: dict[str, bytes] = {}
    while waiting:
        place = waiting.pop()
        path = _source(place)
        if place in found or path is None:
            continue
        found[place] = path.read_bytes()
        waiting += _imported(place, found[place])
        waiting += [str(parent / "__init__.py") for parent in PurePosixPath(place).parents]
    parents = {parent for each in found for parent in PurePosixPath(each).parents}
    packages = {str(parent / "__init__.py") for parent in parents - {PurePosixPath(".")}}
    # Those that have nothing of their own, or nothing that a host needs.
    found.update(dict.fromkeys(packages - set(found), b""))
    found["ansible/__init__.py"] = f"__version__ = {__version__!r}\n".encode()
    return found


def _source(place: str) -> Path | None:
    """The file of the control node that has this place on the host, None if there is none."""
    for prefix, root in TREES.items():
        if place.startswith(f"{prefix}/"):
            path = root / place[len(prefix) + 1 :]
            return path if path.is_file() else None
    return None


def _imported(place: str, content: bytes) -> list[str]:
    """Where the modules that a file imports may be; a name may also be something in a module."""
    package = PurePosixPath(place).parent.as_posix().split("/")
    names: list[list[str]] = []
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            names += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            start = [*start, *(node.module.split(".") if node.module else [])]
            names += [start, *([*start, alias.name] for alias in node.names)]
    paths = {"/".join(name) for name in names}
    return [place for path in paths for place in (f"{path}.py", f"{path}/__init__.py")]


def archive() -> bytes:
    """The contents as a ZIP file, the same for the same contents."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in sorted(contents().items()):
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


@functools.lru_cache(maxsize=1)
def _launcher() -> str:
    return Path(launcher.__file__).read_text(encoding="utf-8")


def once_per_run(name: str, make: Any) -> bytes:
    """What one of the run's processes has made, for all others."""
    place = Path(C.DEFAULT_LOCAL_TMP) / f"wsgi-host-{name}"
    if not place.exists():
        with place.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                made = place.with_suffix(".new")
                made.write_bytes(make())
                made.rename(place)
    return place.read_bytes()


def _of_version(version: bytes) -> bytes:
    """The archive of that version; nothing where the files have changed since the run began.

    Hosts keep it under the version's name. Without it a task goes Ansible's own way.
    """
    made = archive()
    return made if digest().encode() == version else b""


def payload(module: str, arguments: dict[str, Any], *, whole: bool) -> bytes:
    """The script that a task sends; `whole` if the modules come with it."""
    encoder = get_module_encoder(PROFILE, Direction.CONTROLLER_TO_MODULE)
    version = once_per_run("digest", lambda: digest().encode())
    kept = once_per_run("modules", lambda: _of_version(version)) if whole else b""
    sent = {
        "version": version.decode(),
        "module": f"{OWN}/modules/{module.rpartition('.')[2]}".replace("/", "."),
        "profile": PROFILE,
        "arguments": json.dumps({"ANSIBLE_MODULE_ARGS": arguments}, cls=encoder),
        "archive": base64.b64encode(kept).decode(),
    }
    call = ", ".join(f"{name}={value!r}" for name, value in sent.items())
    return f"{_launcher()}\n\nlaunch({call})\n".encode()


# How an action sends it --------------------------------------------------------------------------


class KeptModules(ActionBase):
    """An action whose modules stay on the host. It is used as ActionBase is."""

    _sends = NO_CODE

    def _execute_module(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Run the module; send all of them where the host lacks them."""
        result: dict[str, Any] = super()._execute_module(*arguments, **options)
        if not result.get(launcher.MISSING):
            return result
        self._sends = WHOLE
        result = super()._execute_module(*arguments, **options)
        # Where there is no room for them, they are sent with each task.
        self._sends = NO_CODE
        if result.get(launcher.MISSING):
            self._sends = ANSIBLES
            result = super()._execute_module(*arguments, **options)
        return result

    def _configure_module(
        self, module_name: str, module_args: dict[str, Any], task_vars: dict[str, Any]
    ) -> tuple[Any, str]:
        """What Ansible is to send for a task, and the module's file."""
        interpreter = self._interpreter_of_kept(module_name, task_vars)
        if not interpreter:
            found: tuple[Any, str] = super()._configure_module(
                module_name=module_name, module_args=module_args, task_vars=task_vars
            )
            return found
        built = SimpleNamespace(
            b_module_data=payload(module_name, module_args, whole=self._sends == WHOLE),
            module_style="new",
            shebang=f"#!{interpreter}",
            serialization_profile=PROFILE,
        )
        return built, str(PLUGINS / "modules" / f"{module_name.rpartition('.')[2]}.py")

    def _interpreter_of_kept(self, module: str, task_vars: dict[str, Any]) -> str:
        """The host's Python, empty where the task goes Ansible's own way."""
        if self._sends == ANSIBLES or self._task.async_val or not _as_expected():
            return ""
        if not module.startswith(f"{COLLECTION}."):
            return ""
        if not self._as_root() or C.config.get_config_value(OPEN_FILES, variables=task_vars):
            return ""
        host = self._task.delegate_to
        variables = task_vars["ansible_delegated_vars"][host] if host else task_vars
        python = C.config.get_config_value(INTERPRETER, variables=variables)
        if getattr(self._connection, "_remote_is_local", False):
            python = variables["ansible_playbook_python"]
        python = str(self._templar.template(python) or "")
        return python if python.startswith("/") else ""

    def _as_root(self) -> bool:
        if self._connection.become:
            return (self.get_become_option("become_user") or "root") == "root"
        return self._get_remote_user() == "root"


@functools.lru_cache(maxsize=1)
def _as_expected() -> bool:
    """Whether this version of Ansible runs a module as the launcher does."""
    return list(inspect.signature(_loader.run_module).parameters) == EXPECTED


class Plain(KeptModules):
    """An action that runs the module of its name and does nothing else."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the module's answer."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(self._execute_module(task_vars=task_vars))
        return result
