"""Calls podman, with settings of our own only where the machine needs them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "testhosts"
# Containers, networks and images carry these, so that only what is ours is ever removed.
LABEL_PROJECT = "testhosts.project"
LABEL_SCOPE = "testhosts.scope"
# Short name of this checkout: two checkouts on one machine do not meet.
CHECKOUT = hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]

CAP_SYS_RESOURCE = 24
# Enough for any test; more than this many processes was refused in the engine even below the limit.
MOST_FILES = 1_048_576
MOST_PROCESSES = 32_768
# Of a host, where a process of this machine that is in no group has 1024 (`weight`).
WEIGHT = 4096


class TestHostsError(Exception):
    """Something that the person at the keyboard can act on; the message says how."""

    __test__ = False  # not a test, whatever pytest makes of the name


def use_utf8() -> None:
    """Have this process and all that it starts speak UTF-8 and English, whatever the shell has.

    Ansible starts in no other encoding. For commands of this project, as their first act; the
    locale is built into glibc.
    """
    os.environ["LC_ALL"] = "C.UTF-8"
    os.environ.pop("LANGUAGE", None)


def ulimits(capabilities: int, hard_files: int, hard_processes: int) -> list[str]:
    """Limits to ask for where the engine's own defaults are refused; empty where they are not.

    Args:
        capabilities: effective capabilities of root here, as a bit mask.
        hard_files: hard limit of open files, -1 for none.
        hard_processes: hard limit of processes, -1 for none.
    """
    if capabilities >> CAP_SYS_RESOURCE & 1:
        return []
    # Limits can only be lowered here, and the engine's default raises them.
    files = min(hard_files, MOST_FILES) if hard_files >= 0 else MOST_FILES
    processes = min(hard_processes, MOST_PROCESSES) if hard_processes >= 0 else MOST_PROCESSES
    return [f"nofile={files}:{files}", f"nproc={processes}:{processes}"]


def containers_conf(cgroup_filesystem: str, limits: Sequence[str]) -> str | None:
    """Settings that make the engine work on this machine, or None when its own defaults do.

    Args:
        cgroup_filesystem: type of the filesystem on /sys/fs/cgroup, as `stat -f -c %T` prints it.
        limits: what `ulimits` says.
    """
    text = ""
    if cgroup_filesystem != "cgroup2fs":
        # crun refuses cgroup v1 and hybrid hierarchies.
        text += '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n'
    if limits:
        text += f"[containers]\ndefault_ulimits = {json.dumps(list(limits))}\n"
    return text or None


def weight(cgroup_filesystem: str) -> list[str]:
    """What makes a host compete for processors as a machine does, as options of `podman create`.

    By cgroup v1, all hosts together would have the share of a single process of this machine: the
    engine puts them into one group, and processes beside them are in none. On a busy machine hosts
    would then hardly run. With v2 the machine's processes are in groups as well.

    Args:
        cgroup_filesystem: as for `containers_conf`.
    """
    if cgroup_filesystem == "cgroup2fs":
        return []
    return ["--cgroup-parent=/", f"--cpu-shares={WEIGHT}"]


def look() -> tuple[str, list[str]]:
    """What `containers_conf` needs to know of the machine that this runs on."""
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", "/sys/fs/cgroup"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    status = Path("/proc/self/status").read_text()
    # Without root, podman runs through sudo: the bounding set is what root can have here.
    field = "CapEff:" if os.geteuid() == 0 else "CapBnd:"
    capabilities = int(next(x for x in status.splitlines() if x.startswith(field)).split()[1], 16)
    limits = ulimits(
        capabilities,
        resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        resource.getrlimit(resource.RLIMIT_NPROC)[1],
    )
    return kind, limits


class Engine:
    """podman, run by root or through sudo."""

    def __init__(self) -> None:
        """Look at the machine.

        Raises:
            TestHostsError: podman or its low-level runtime is missing, or there is no way to be
                root.
        """
        CACHE.mkdir(parents=True, exist_ok=True)
        self.root_prefix: list[str] = []
        if os.geteuid() != 0:
            if not shutil.which("sudo"):
                raise TestHostsError("Test hosts need root: run this as root, or install sudo.")
            if subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode:
                raise TestHostsError(
                    "Test hosts need root, and sudo asks for a password: run `sudo -v` first."
                )
            self.root_prefix = ["sudo", "-n"]
        if not shutil.which("podman"):
            raise TestHostsError("podman is not installed: run tools/bootstrap.")
        # podman 5 says with every call that v1 is old.
        self._environment = ["env", "PODMAN_IGNORE_CGROUPSV1_WARNING=1"]
        kind, self.ulimits = look()
        self.weight = weight(kind)
        wanted = containers_conf(kind, self.ulimits)
        conf = CACHE / "containers.conf"
        if wanted:
            if "runc" in wanted and not shutil.which("runc"):
                raise TestHostsError(
                    "This machine has no pure cgroup v2 hierarchy, which takes runc: "
                    "run tools/bootstrap."
                )
            if not conf.exists() or conf.read_text() != wanted:
                conf.write_text(wanted)
            self._environment.append(f"CONTAINERS_CONF={conf}")

    def command(self, *arguments: str) -> list[str]:
        """The whole argv of a podman call."""
        return [*self.root_prefix, *self._environment, "podman", *arguments]

    def podman(
        self,
        *arguments: str,
        check: bool = True,
        text: str | None = None,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run podman and keep what it says.

        Args:
            arguments: its arguments.
            check: raise when it fails.
            text: its standard input.
            timeout: seconds that it may take.

        Raises:
            TestHostsError: it failed, and `check` is set.
            subprocess.TimeoutExpired: it took too long.
        """
        done = subprocess.run(
            self.command(*arguments),
            check=False,
            capture_output=True,
            text=True,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            timeout=timeout,
        )
        if check and done.returncode:
            said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
            raise TestHostsError(f"podman {' '.join(arguments[:2])}: {said}")
        return done

    def as_root(self, argv: Sequence[str]) -> list[str]:
        """The argv of any other program that needs root."""
        return [*self.root_prefix, *argv]


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Keep other processes of this checkout out until the block ends."""
    path = CACHE / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
