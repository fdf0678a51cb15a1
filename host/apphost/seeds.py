"""Commands that make the first rows of a database: a user, a demo."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from . import sandbox
from .application import Application
from .errors import HostError, UsageError
from .schema import output

# For a few rows.
LIMIT_SECONDS = 600
HIDDEN = "********"


@dataclass(frozen=True)
class Seed:
    """A command that makes first rows.

    Attributes:
        name: of what it makes.
        key: when it is another one, the command runs again.
        words: of the command.
        stdin: what it reads; a secret.
    """

    name: str
    key: str
    words: tuple[str, ...]
    stdin: str = field(default="", repr=False)

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name} ({self.key})" if self.key else self.name


def read(text: str) -> list[Seed]:
    """The seeds of a JSON object. Raises UsageError without a word of it, since it has secrets."""
    try:
        seeds = []
        for each in json.loads(text)["seeds"]:
            name, key, words = each["name"], each.get("key", ""), each["words"]
            stdin = each.get("stdin", "")
            texts = [name, key, stdin, *words]
            if not isinstance(words, list) or not words or not name:
                raise ValueError
            if not all(isinstance(part, str) for part in texts):
                raise ValueError
            seeds.append(Seed(name, key, tuple(words), stdin))
        if len({seed.name for seed in seeds}) < len(seeds):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            '--seeds: standard input is not {"seeds": [{"name": ..., "key": ..., "words": [...], '
            '"stdin": ...}]} with a name of its own for each'
        ) from None
    return seeds


def run(application: Application, release: str, seed: Seed) -> bool:
    """Run the command of a seed; return whether it made something, as far as it says so.

    Raises HostError with what it wrote, and without what it read.
    """
    result = sandbox.run(
        application,
        seed.words,
        release=release,
        time_limit_seconds=LIMIT_SECONDS,
        input=seed.stdin,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if result.returncode:
        words = output(result)
        for secret in filter(None, (seed.stdin, *map(str.strip, seed.stdin.splitlines()))):
            words = words.replace(secret, HIDDEN)
        raise HostError(f"The seed {seed.title} failed (exit code {result.returncode}):\n{words}")
    try:
        answer = json.loads(result.stdout)
    except ValueError:
        return True
    return not (isinstance(answer, dict) and answer.get("changed") is False)
