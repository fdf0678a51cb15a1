"""Whether a Python of this host still starts: an upgrade of the system may take it away.

Releases link to an interpreter of the host, which they do not bring along.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# Of several packages where a system splits Python up, and what applications need at once.
IMPORTS = "import ctypes, email.parser, sqlite3, ssl"
START_SECONDS = 10


def fault(path: str) -> str:
    """What is wrong with an interpreter that releases link to, in words; empty if it runs."""
    if not os.access(path, os.X_OK):
        return f"its interpreter {path} is not on this host"
    try:
        result = subprocess.run(
            [path, "-I", "-S", "-c", IMPORTS],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=START_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"its interpreter {path} does not start within {START_SECONDS} s"
    except OSError as error:
        return f"its interpreter {path} does not start: {error.strerror}"
    if result.returncode:
        last = (result.stderr.strip() or f"exit code {result.returncode}").splitlines()[-1]
        return f"its interpreter {path} is not complete: {last}"
    return ""


def lacking(python: str) -> str:
    """The file of an interpreter or its library that the next start would miss; empty if none.

    It starts nothing, so it can be asked every few seconds. A process goes on without these files,
    and fails wherever it imports something for the first time.
    """
    interpreter = Path(os.path.realpath(python))
    if not os.access(interpreter, os.X_OK):
        return str(interpreter)
    libraries = [interpreter.parent.parent / lib / interpreter.name for lib in ("lib", "lib64")]
    # Nothing is known about a library that is kept elsewhere.
    present = [library for library in libraries if library.is_dir()]
    # Debian packages it apart from the minimal library.
    if present and not any((library / "ctypes" / "__init__.py").exists() for library in present):
        return str(present[0] / "ctypes")
    return ""
