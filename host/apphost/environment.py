"""What a process inherits from a host, reduced to what is meant for it.

`/etc/environment`, PAM, sudo, a shell's profile and systemd's defaults hand a process a locale, a
path, a umask, proxies, settings of Python and of systemd's tools. None of them may decide how a
host is set up, or in which language the programs speak that are run and read. `apply` is the first
call of each module of the collection `wsgi.host` and of each command on a host.
"""

from __future__ import annotations

import os
import time

# Where systems keep their programs; those of an administrator go first, as everywhere.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# English, and UTF-8 for names of files. glibc has it built in on Debian 12 and newer.
LOCALE = "C.UTF-8"
UMASK = 0o022
# Who somebody is and at which terminal, and what systemd hands to a unit.
KEPT = frozenset(
    {
        *("HOME", "USER", "LOGNAME", "TERM", "COLUMNS", "LINES", "NO_COLOR"),
        *("SUDO_USER", "SUDO_UID", "SUDO_GID"),
        *("NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY"),
        *("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
        *("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY"),
        "CONFIGURATION_DIRECTORY",
    }
)


def cleaned(environment: dict[str, str]) -> dict[str, str]:
    """Return an environment without what is not meant for this process."""
    kept = {key: value for key, value in environment.items() if key in KEPT}
    return {**kept, "PATH": PATH, "LC_ALL": LOCALE}


# What this process inherited, for a command that is an operator's own.
INHERITED: dict[str, str] = {}


def apply() -> None:
    """Clean this process, and so all that it starts."""
    before = dict(os.environ)
    INHERITED.update(before)
    os.environ.clear()
    os.environ.update(cleaned(before))
    os.umask(UMASK)
    # The zone of the host is read anew, in place of that of TZ.
    time.tzset()
