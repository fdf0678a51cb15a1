"""Whether the database suits the release, asked while the standby starts.

The release answers by starting once more, which takes as long as the standby's own start. Nobody is
served by the standby before the answer is there.
"""

from __future__ import annotations

import threading

from .. import releases
from ..application import Application
from ..errors import RefusedError


class UnsuitedError(RefusedError):
    """The release says that it cannot work with the database as it is, or does not say."""


class Question:
    """A release is asked, once, beside what else is done."""

    def __init__(self, application: Application, release: str) -> None:
        self._application, self._release = application, release
        self._fault = ""
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            releases.suits(self._application, self._release)
        except Exception as error:
            # Whatever it is: a thread that ended without an answer has not said yes.
            self._fault = str(error) or type(error).__name__

    def check(self, *, wait: bool = False) -> None:
        """Raise UnsuitedError once the answer is no.

        Args:
            wait: until there is an answer; otherwise none is as good as yes.
        """
        if wait:
            self._thread.join()
        if not self._thread.is_alive() and self._fault:
            raise UnsuitedError(self._fault)


class NoQuestion:
    """In its place where nothing is to be asked."""

    def check(self, *, wait: bool = False) -> None:
        """Nothing is wrong."""
