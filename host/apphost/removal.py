"""Takes a release off the host, unless a handover needs it."""

from __future__ import annotations

import json
import os
import shutil

from . import files, records
from .application import Application
from .errors import RefusedError

# A release that is being removed; the module that installs releases removes what a killed run left.
TEMPORARY = ".new-"


def remove(application: Application, name: str) -> bool:
    """Remove a release; False where a handover has begun since it was chosen."""
    temporary = application.releases / f"{TEMPORARY}removed-{name}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        # No handover begins between the look and the rename.
        with files.held(application.handover_lock, 0, RefusedError("A handover is under way.")):
            if name in in_handover(application) or name == application.live():
                return False
            # In one step, so that no half of a release is ever taken for a whole one.
            os.rename(application.releases / name, temporary)
    except RefusedError:
        return False
    records.forget(application.state, name)
    shutil.rmtree(temporary)
    return True


def in_handover(application: Application) -> str:
    """What is noted of the handover that is under way, as text."""
    return json.dumps(files.read_json_if_possible(application.state / "handover.json"))
