"""Does one thing: `VERB {"data": DIRECTORY, ...}`."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import tarfile
import time
from collections.abc import Callable
from typing import BinaryIO

from . import loading, reading, replacing
from .common import Failure, Told

# A run that was killed may have left one of these working.
LOCK_SECONDS = 600

Verb = Callable[[Told, BinaryIO], None]
READING: dict[str, Verb] = {
    "sqlite": reading.sqlite,
    "there": reading.there,
    "postgresql": reading.postgresql,
    "files": reading.files,
    "save": reading.save,
}
# Of these, one at a time.
WRITING: dict[str, Verb] = {
    "check": replacing.check,
    "stage-file": replacing.stage_file,
    "stage-saved": replacing.stage_saved,
    "saved": replacing.saved,
    "stage-directories": replacing.stage_directories,
    "swap": replacing.swap,
    "undo": replacing.undo,
    "recover": replacing.recover,
    "finish": replacing.finish,
    "load": loading.load,
}


def lock() -> None:
    """Be the only one that writes, until the end of this process. Raises Failure."""
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise Failure("An earlier run still works on the data: look with `ps`") from None
            time.sleep(0.2)


class Ended(BaseException):
    """Somebody stops it, such as systemd at a reboot."""


def end(*_: object) -> None:
    """Have everything tidied up on the way out."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Ended


def main() -> None:
    """Do one thing."""
    signal.signal(signal.SIGTERM, end)
    verb, told = sys.argv[1], json.loads(sys.argv[2])
    os.umask(0o077)
    os.chdir(told["data"])
    try:
        if verb in READING:
            READING[verb](told, sys.stdout.buffer)
            sys.stdout.flush()
        else:
            lock()
            WRITING[verb](told, sys.stdout.buffer)
    except Ended:
        # Python would wait until somebody reads what is still to be written.
        os._exit(128 + signal.SIGTERM)
    except Failure as error:
        print(error, file=sys.stderr)
        sys.exit(error.code)
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        sys.exit(f"{error.strerror}{place}")
    except (tarfile.TarError, EOFError) as error:
        sys.exit(f"The copy cannot be read: {error}")
