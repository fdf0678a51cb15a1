"""The units that run with the files of a tree."""

from __future__ import annotations

from ansible_collections.wsgi.host.plugins.module_utils.apphost.systemd import (
    Systemd,
    SystemdError,
    all_properties,
)
from ansible_collections.wsgi.host.plugins.module_utils.apphost.trees import TreeError

# What systemd says of a unit file that can be enabled and is not.
DISABLED = "disabled"


def idle(units: list[str]) -> list[str]:
    """Those that do not run, or would not after a boot."""
    known = all_properties(units, "ActiveState", "UnitFileState")
    return [
        unit
        for unit, shown in known.items()
        if shown["ActiveState"] != "active" or shown["UnitFileState"] == DISABLED
    ]


def run(units: list[str], *, anew: bool, read_again: bool) -> None:
    """Have units run, now and at every boot.

    Args:
        anew: also those that run already.
        read_again: have systemd read its unit files again before.

    Raises TreeError with what systemd says.
    """
    systemd = Systemd()
    try:
        if anew and read_again:
            systemd.reload()
        known = all_properties(units, "UnitFileState")
        disabled = [unit for unit, shown in known.items() if shown["UnitFileState"] == DISABLED]
        if disabled:
            systemd.call("systemctl", "enable", "--quiet", *disabled)
        systemd.call("systemctl", "restart" if anew else "start", *units)
    except SystemdError as error:
        raise TreeError(f"{error}. See `systemctl status {' '.join(units)}`") from error
