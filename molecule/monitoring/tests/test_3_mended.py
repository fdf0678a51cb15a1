"""After the faults: what was mended is silent."""

from __future__ import annotations

from conftest import Watched, until

testinfra_hosts = ["ansible://watched"]

# They look back on purpose: at 5 minutes of answers, 10 of kills, 15 of restarts or refusals, at
# the budget that is gone.
LOOKING_BACK = {
    "SlowAnswers",
    "OutOfMemory",
    "UnitRestarts",
    "NotificationsFail",
    "ErrorBudgetBurnsFast",
    "ErrorBudgetBurnsSlowly",
}


def test_what_was_mended_is_silent(watched: Watched) -> None:
    """An alert that does not end is one that nobody reads any more."""
    until(watched.firing, lambda firing: firing <= LOOKING_BACK)
