"""Whether a release suits its database: it is asked by the command `schema` of the description.

The command prints one JSON object: `head` is the revision that the release needs, `database` the
one that is there (null for none), `compatible` whether the release works with it, `reason` why not.
Of a command that prints anything else the exit code counts: with 0 the database suits the release,
otherwise its output is the reason.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from subprocess import CompletedProcess
from typing import Any

from . import sandbox
from .application import Application
from .errors import RefusedError
from .files import read_json_if_possible

# A release that does not come to an end of its start must not hold up whoever asks it. A large one
# takes 20 s of a processor, which a busy host may not have.
ASK_SECONDS = 180
OUTPUT_LINES = 30
MEMBERS = ("head", "database", "compatible", "reason")


class UnansweredError(RefusedError):
    """The release did not say whether its database suits it."""


@dataclass(frozen=True)
class Schema:
    """What a release says of its database.

    Attributes:
        compatible: whether the release works with it as it is.
        reason: why not.
        head: the revision that the release needs; None if it does not tell revisions apart.
        database: the revision of the database; None if it has none.
        numbered: whether the release tells revisions apart.
    """

    compatible: bool
    reason: str = ""
    head: str | None = None
    database: str | None = None
    numbered: bool = False

    def facts(self) -> dict[str, Any]:
        """The members of an answer."""
        return {key: value for key, value in asdict(self).items() if key in MEMBERS}


def is_known(application: Application, release: str) -> bool:
    """Whether a release has a database: it may be from before there was one."""
    packaged = application.database.packaged
    return application.has("schema") and (
        not packaged or (application.releases / release / packaged).exists()
    )


def is_that_of(application: Application, release: str, other: str) -> bool:
    """Whether a release needs the same schema as another one, as far as their files tell.

    The answer is no where it cannot be told, so that the release itself is asked.
    """
    needed = [_deciding(application, each) for each in (release, other)]
    return needed[0] is not None and needed[0] == needed[1]


def _deciding(application: Application, release: str) -> dict[str, str] | None:
    """The files of a release that decide which schema it needs, with their hashes."""
    manifest = read_json_if_possible(application.releases / release / "manifest.json")
    found: dict[str, str] = manifest.get("files") or {}
    own = {
        name: digest
        for name, digest in found.items()
        if any(fnmatchcase(name, pattern) for pattern in application.database.migrations)
    }
    packages = {name: digest for name, digest in found.items() if name.startswith("site-packages/")}
    return {**own, **packages} if own else None


def ask(application: Application, release: str) -> Schema:
    """Ask a release that has a database. Raises UnansweredError if it does not answer."""
    result = sandbox.run(
        application,
        application.words("schema"),
        release=release,
        time_limit_seconds=ASK_SECONDS,
        input="",
        capture_output=True,
        text=True,
        errors="replace",
    )
    try:
        answer = json.loads(result.stdout)
        compatible = answer["compatible"]
    except (ValueError, KeyError, TypeError):
        return _by_exit_code(release, result)
    return Schema(
        compatible=bool(compatible),
        reason=str(answer.get("reason") or ""),
        head=answer.get("head"),
        database=answer.get("database"),
        numbered=True,
    )


def _by_exit_code(release: str, result: CompletedProcess[str]) -> Schema:
    if result.returncode == sandbox.ENDED:
        raise UnansweredError(
            f"Release {release} does not say whether the database suits it. Its output:\n"
            f"{output(result)}"
        )
    if result.returncode == 0:
        return Schema(compatible=True)
    reason = output(result) or "it gives no reason"
    return Schema(compatible=False, reason=f"{reason} (exit code {result.returncode})")


def output(result: CompletedProcess[str]) -> str:
    """The end of what a command wrote, errors last."""
    lines = [line.rstrip() for line in (result.stdout + "\n" + result.stderr).splitlines()]
    return "\n".join([line for line in lines if line][-OUTPUT_LINES:])
