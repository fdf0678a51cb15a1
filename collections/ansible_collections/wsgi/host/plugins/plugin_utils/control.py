"""Who and what the control node is, for records and locks on hosts."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


def whoami() -> str:
    """Return `user@machine` of whoever started Ansible; under sudo, who used it."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that nobody has.
        user = str(os.getuid())
    return f"{user}@{platform.node()}"


def read(path: str) -> str:
    """Return what a file of /proc says, empty if there is none."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def started(pid: int) -> str:
    """Return when a process was started, in ticks since the boot; empty if there is none.

    A number that was given to another process since is told apart by it.
    """
    # The name, in brackets, may itself hold blanks and brackets (proc(5)).
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


@dataclass(frozen=True)
class Process:
    """A process of a control node, told apart from all others, also on other machines.

    Attributes:
        node: the machine's name.
        machine: the machine's number, from its installation.
        boot: the number of its boot, from the kernel.
        namespace: of process numbers. Containers on one machine have one each.
        pid: the process.
        start: when it was started, in ticks since the boot.
    """

    node: str
    machine: str
    boot: str
    namespace: str
    pid: int
    start: str

    def token(self) -> str:
        """Return a word that no other process has."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return a process of this machine."""
        try:
            namespace = os.readlink("/proc/self/ns/pid")
        except OSError:
            namespace = ""
        boot = read("/proc/sys/kernel/random/boot_id")
        machine = read("/etc/machine-id")
        return cls(platform.node(), machine, boot, namespace, pid, started(pid))


def this_run() -> Process:
    """Return the process that the operator started: actions run in children of it."""
    own = os.getpid()
    # Ansible forks a worker for each task.
    return Process.of(os.getppid() if is_worker(own) else own)


def is_worker(pid: int) -> bool:
    """Whether a process runs the same program as the one that started it, as a fork does."""
    parent = read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1:2]
    return bool(parent) and read(f"/proc/{pid}/cmdline") == read(f"/proc/{parent[0]}/cmdline")


def is_gone(told: object) -> bool:
    """Whether a process that a lock names was on this machine and has ended.

    False where that cannot be told from here: on another machine, or in another container.
    """
    try:
        process = Process(**told)  # type: ignore[arg-type]
        here = Process.of(int(process.pid))
    except (TypeError, ValueError):
        return False
    if not here.machine or (here.node, here.machine) != (process.node, process.machine):
        return False
    if here.boot != process.boot:
        return True
    return here.namespace == process.namespace and here.start != process.start
