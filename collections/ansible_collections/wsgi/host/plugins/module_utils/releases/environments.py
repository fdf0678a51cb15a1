"""The virtual environment of a release: its interpreter and the commands of its packages."""

from __future__ import annotations

import configparser
import glob
import os
import re
import shutil
import sys

from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError


def find_python(version: str) -> str:
    """Return the path of the host's interpreter of that version, outside any environment."""
    if "{}.{}".format(*sys.version_info) == version:
        beside = os.path.join(sys.base_prefix, "bin", "python" + version)
        return beside if os.access(beside, os.X_OK) else os.path.realpath(sys.executable)
    found = shutil.which("python" + version)
    if found:
        return os.path.realpath(found)
    raise ReleaseError(
        "The bundle is built for Python {}, which this host does not have (the module runs on "
        "{}.{}). Install it, or build the bundle for this host's version.".format(
            version, *sys.version_info
        )
    )


def make_environment(target: str, interpreter: str, python: str) -> None:
    """Make target a virtual environment.

    This is what `python -m venv --without-pip --symlinks` makes, without the activation scripts,
    which would hold the temporary path.
    """
    os.makedirs(f"{target}/bin")
    # Processes work there, also those of an application that consists of packages alone.
    os.makedirs(f"{target}/app", exist_ok=True)
    os.makedirs(f"{target}/lib/python{python}/site-packages", exist_ok=True)
    os.symlink("lib", f"{target}/lib64")
    os.symlink(interpreter, f"{target}/bin/python")
    for name in ("python3", "python" + python):
        os.symlink("python", f"{target}/bin/{name}")
    with open(f"{target}/pyvenv.cfg", "w", encoding="utf-8") as file:
        file.write(
            f"home = {os.path.dirname(interpreter)}\n"
            f"include-system-site-packages = false\n"
            f"version = {python}\n"
            f"executable = {interpreter}\n"
        )


def make_scripts(target: str, final: str, python: str) -> None:
    """Write the packages' commands to bin/, as an installer would, for the release's Python."""
    packages = f"{target}/lib/python{python}/site-packages"
    for path in glob.glob(f"{packages}/*.dist-info/entry_points.txt"):
        parser = configparser.RawConfigParser(delimiters=("=",))
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read(path, encoding="utf-8")
        commands = parser.items("console_scripts") if parser.has_section("console_scripts") else []
        for name, reference in commands:
            match = re.fullmatch(r"([\w.]+)\s*:\s*(\w+)([\w.]*)(\s*\[.*\])?", reference)
            if match is None or not re.fullmatch(r"[\w.-]+", name) or name.startswith("python"):
                raise ReleaseError(f"{os.path.basename(os.path.dirname(path))}: bad command {name}")
            script = f"{target}/bin/{name}"
            with open(script, "w", encoding="utf-8") as file:
                file.write(
                    f"#!{final}/bin/python\n"
                    f"import sys\n"
                    f"from {match[1]} import {match[2]}\n\n"
                    f"sys.exit({match[2]}{match[3]}())\n"
                )
