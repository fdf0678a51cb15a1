"""Reading much never holds up recording: how much may be read at once, by one caller and by all.

A view whose cost grows with the data is marked with `limited`, which takes a slot for the request
and gives it back when the answer is sent. Slots are locks on files, so they count across all
processes of the host, and the kernel gives back those of a process that dies.

A caller who has no slot left is refused at once (429), so nobody else waits for what one caller
sends. When all slots of the host are taken a request waits a moment, then it is refused (503). So
reads take as many of the service's threads as they have slots, plus a moment of those that wait.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import os
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

from flask import Flask, current_app, g, make_response, request
from flask_login import current_user

from toll.settings import Settings, SettingsError

P = ParamSpec("P")
# How long a request waits for a slot of the host, and how often it looks.
WAIT_SECONDS = 0.5
LOOK_SECONDS = 0.01
MOST_REST_SECONDS = 0.2
SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class Limit:
    """How many requests of one kind there are at once.

    Attributes:
        name: of the kind.
        own: of one user, API key or, where nobody is known, address.
        host: of all, in all processes of the host.
        retry_after: seconds after which one of them is likely to have ended.
        words: the kind, as people call it.
    """

    name: str
    own: int
    host: int
    retry_after: int
    words: str


# A host of one processor serves 6 requests at once, one of two processors 10, by the defaults of
# the role gunicorn_systemd. Most of these are left for recording and for the health watcher.
# Exports and sums go through all passages that match.
REPORT = Limit("report", own=1, host=2, retry_after=5, words="exports and revenue reports")
# Lists and the dashboard look at one page or one day, and at what they have to pass over.
LIST = Limit("list", own=2, host=3, retry_after=1, words="lists")
LIMITS = (REPORT, LIST)


class Refused(Exception):
    """There is no slot. The message is for the caller.

    Attributes:
        own: whether the caller's own requests take the slots, or those of others.
        retry_after: seconds.
    """

    def __init__(self, limit: Limit, own: bool) -> None:
        most = limit.own if own else limit.host
        whose = "You have" if own else "This service has"
        them = f"{most} of its {limit.words}" if not own else f"{most} of your {limit.words}"
        super().__init__(
            f"{whose} {them} under way, which is as many as there may be at once. "
            f"Try again in {limit.retry_after} second{'' if limit.retry_after == 1 else 's'}."
        )
        self.own = own
        self.retry_after = limit.retry_after


class Slots:
    """The slots of a host, as files in a directory that its processes share."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def take(self, limit: Limit, who: str) -> Slot:
        """Take a slot of the caller and one of the host; raise Refused."""
        # Names are what people chose: of any length, with any character.
        self.directory.mkdir(mode=0o700, exist_ok=True)
        caller = hashlib.sha256(who.encode()).hexdigest()[:16]
        slot = Slot()
        try:
            # The first one, or a further one.
            if not self._lock(slot, f"{limit.name}-{caller}", 1):
                slot.further = True
                if not self._lock(slot, f"{limit.name}-{caller}-further", limit.own - 1):
                    raise Refused(limit, own=True)
            end = time.monotonic() + WAIT_SECONDS
            while not self._lock(slot, limit.name, limit.host):
                if time.monotonic() >= end:
                    raise Refused(limit, own=False)
                time.sleep(LOOK_SECONDS)
        except BaseException:
            slot.give_back()
            raise
        return slot

    def _lock(self, slot: Slot, name: str, number: int) -> bool:
        """Lock one of the files of that name; return whether there was a free one."""
        for index in range(number):
            path = self.directory / f"{name}.{index}"
            # Each opening has a lock of its own, in the same process too.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
            else:
                slot.descriptors.append(descriptor)
                return True
        return False


class Slot:
    """What a request holds until it is answered."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        # Whether the caller has others of the kind.
        self.further = False

    def give_back(self) -> None:
        """Let somebody else have it; the second time it does nothing."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    # An answer that the server never got to closing is forgotten in the end.
    __del__ = give_back


def limited(limit: Limit) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """Mark a view: it runs with a slot, which it keeps until its answer is sent."""

    def mark(view: Callable[P, Any]) -> Callable[P, Any]:
        @functools.wraps(view)
        def with_slot(*args: P.args, **kwargs: P.kwargs) -> Any:
            slots: Slots = current_app.extensions["toll.reads"]
            slot = slots.take(limit, caller())
            begun = time.monotonic()
            try:
                response = make_response(view(*args, **kwargs))
                if slot.further:
                    # Who asks for several at once gets the processor for a third of the time.
                    time.sleep(min(2 * (time.monotonic() - begun), MOST_REST_SECONDS))
            except BaseException:
                slot.give_back()
                raise
            if response.is_streamed:
                response.response = _sent(response.response, slot)
                # Also when nothing of it was sent, or not all.
                response.call_on_close(slot.give_back)
            else:
                slot.give_back()
            return response

        with_slot.limit = limit  # type: ignore[attr-defined]
        return with_slot

    return mark


def _sent(chunks: Iterable[Any], slot: Slot) -> Iterator[Any]:
    # The server closes an answer when its client has the end of it, and may ask again by then.
    yield from chunks
    slot.give_back()


def caller() -> str:
    """Return who asks: a key, a user, or the address of a stranger."""
    if key := g.get("api_key"):
        return f"key:{key.id}"
    if not request.path.startswith("/api/") and current_user.is_authenticated:
        return f"user:{current_user.id}"
    return f"address:{request.remote_addr}"


def limit_of(app: Flask, endpoint: str) -> Limit | None:
    """Return the limit that a view is marked with."""
    # functools.wraps hands it on to whatever wraps the view.
    found: Limit | None = getattr(app.view_functions[endpoint], "limit", None)
    return found


def init_app(app: Flask, settings: Settings) -> None:
    """Share the slots with all processes of the host; raise SettingsError if there can be none."""
    directory = settings.reads_directory
    if directory is None:
        # For all processes that are forked from this one.
        directory = Path(tempfile.mkdtemp(prefix="toll-reads-"))
        weakref.finalize(app, _remove, directory, os.getpid())
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise SettingsError(
            f"{directory} cannot be written: {error.strerror}. Let RUNTIME_DIRECTORY name a "
            f"directory that this user may write, best in memory"
        ) from error
    app.extensions["toll.reads"] = Slots(directory)
    # A thread that waits for the interpreter gets it after this time. Python's 5 ms add up, since
    # a request that records waits for it after each word with the database.
    sys.setswitchinterval(SWITCH_SECONDS)


def _remove(directory: Path, owner: int) -> None:
    # Workers inherit this, and end before the process that made it.
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)
