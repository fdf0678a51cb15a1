"""Programs that are run for copies: tools of the host, and the application's own commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from .. import sandbox
from ..application import Application
from ..errors import HostError

OUTPUT_LINES = 30
INSTALLED = "run the playbook that installs it, site.yml"


def run(argv: Sequence[str], what: str, remedy: str = INSTALLED, **options: Any) -> None:
    """Run a program of the host. Raises HostError if it fails, or is not there.

    Args:
        what: is done by it, as the subject of a sentence.
        remedy: for a program that is not there.
        options: of `subprocess.run`.
    """
    try:
        result = subprocess.run(argv, capture_output=True, check=False, **options)
    except FileNotFoundError:
        raise HostError(f"{argv[0]} is not on this host: {remedy}") from None
    except PermissionError:
        raise HostError(f"{argv[0]} is not a program that can be run") from None
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{what} did not end within {error.timeout:g} s") from None
    if result.returncode:
        raise failure(result, what)


def verb(application: Application, what: str, *words: str) -> dict[str, Any]:
    """Run a verb of the application's command on this host. Raises HostError with its message."""
    result = subprocess.run(
        [str(application.command), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return json_of(result, f"{what} with `{application.name} {words[0]}`")


def dump(application: Application, target: IO[bytes]) -> None:
    """Have the application write a copy of its database. Raises HostError."""
    result = sandbox.run(
        application,
        application.words("backup", "-"),
        stdin=subprocess.DEVNULL,
        stdout=target,
        stderr=subprocess.PIPE,
    )
    if result.returncode:
        raise HostError(
            f"The database could not be copied (exit code {result.returncode}):\n{output(result)}"
        )


def load(application: Application, copy: Path, keep: bool) -> None:
    """Have the application make a copy its database. Raises HostError.

    Args:
        keep: whether it puts aside what is there.
    """
    words = application.words("restore", "-", *([] if keep else ["--no-keep"]))
    with copy.open("rb") as source:
        result = sandbox.run(
            application, words, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    if result.returncode:
        raise failure(result, "The application's restore")


def ask(application: Application, command: str, what: str) -> dict[str, Any]:
    """The JSON object that a command of the live release prints. Raises HostError."""
    result = sandbox.run(
        application,
        application.words(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    return json_of(result, what)


def json_of(result: subprocess.CompletedProcess[Any], what: str) -> dict[str, Any]:
    """The JSON object that a program printed. Raises HostError if it failed or printed none."""
    try:
        answer = json.loads(result.stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise failure(result, what)
    if result.returncode:
        if "msg" in answer:
            raise HostError(f"{what} failed: {answer['msg']}")
        raise failure(result, what)
    return answer


def failure(result: subprocess.CompletedProcess[Any], what: str) -> HostError:
    """The error that quotes a program."""
    return HostError(f"{what} failed (exit code {result.returncode}):\n{output(result)}")


def output(result: subprocess.CompletedProcess[Any]) -> str:
    """The end of what a program printed, errors last."""
    parts = [result.stdout or b"", result.stderr or b""]
    texts = [part if isinstance(part, str) else part.decode(errors="replace") for part in parts]
    lines = [line.rstrip() for line in "\n".join(texts).splitlines()]
    return "\n".join([line for line in lines if line][-OUTPUT_LINES:])
