"""What a handover is doing, so that it can be undone, and what it came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..answer import Answer
from ..errors import DONE
from ..files import known, read_json, write_json
from .config import Config

SCHEMA = 1


@dataclass
class State:
    """What is being done, on disk before it is done: what it takes to go back.

    Attributes:
        id: of the request.
        previous: the release to go back to.
        bridged: a standby serves meanwhile; without one, the sockets were closed or are opened
            anew.
        reopen: the unit of the clients' socket differs.
        invocation: the run of the service that was live before.
        settings: files that differ from the last healthy ones.
        serving: the standby accepts clients.
        generation: of the workers that are started; empty without any.
        leaves: the previous release is excluded from future rollbacks, if all goes well.
    """

    id: str
    release: str | None
    previous: str | None
    by: str
    reason: str
    started_at: str
    stage: str
    bridged: bool
    reopen: bool
    invocation: str
    settings: list[str]
    serving: bool = False
    generation: str = ""
    leaves: bool = False
    schema: int = SCHEMA

    @classmethod
    def read(cls, config: Config) -> State | None:
        """What is under way, or was interrupted; None if nothing is."""
        data = read_json(config.begun)
        return None if data is None else cls(**known(cls, data))

    def write(self, config: Config) -> None:
        """Have it on disk."""
        config.state.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_json(config.begun, asdict(self))


@dataclass
class Result:
    """What a handover came to; --json prints all but the code.

    Attributes:
        verdict: healthy, bad, or None where nothing was judged.
        stage: in which that was.
        answer: the last answer of what was judged bad.
        journal: the end of its journal.
        seconds: how long each stage took.
        code: the exit code.
    """

    changed: bool
    msg: str
    release: str | None = None
    previous: str | None = None
    verdict: str | None = None
    stage: str = ""
    answer: str = ""
    journal: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    code: int = DONE

    def as_answer(self) -> Answer:
        """The same as a verb answers."""
        facts: dict[str, Any] = asdict(self)
        for name in ("changed", "msg", "code"):
            del facts[name]
        return Answer(self.msg, self.changed, facts, code=self.code)
