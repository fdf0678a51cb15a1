"""Run a program of a release with the service's user, settings, credentials and sandbox.

    sudo <name> exec python -V                   of the live release: its bin/, then the host's PATH
    sudo <name> exec --release ID celery report  of another one
    sudo <name> exec --time-limit 60 PROGRAM     ended after 60 seconds, with exit code 124
    sudo <name> exec --env STAGE=migrate PROGRAM with a further variable; may be repeated
    sudo <name> flask routes                     the same for the application's `flask`

The service's unit says what the program may do; it is read at each call, drop-ins included.
Standard input and output are yours, and so is the exit code. The program keeps running if your
session drops.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .application import DIRECT, Application, Database
from .errors import DONE, USAGE, RefusedError, UsageError

# The exit code of timeout(1) for a command that was ended.
ENDED = 124
# Directives about how a service is started, watched and stopped, in place of what it may do.
OTHERS = re.compile(
    r"(Exec(Start|Stop|Condition|Reload)\w*|Type|NotifyAccess|Sockets|WorkingDirectory|Restart\w*|Kill\w*"
    r"|Timeout\w*|RuntimeMaxSec|RuntimeDirectory\w*|Standard\w+|SyslogIdentifier|OOMPolicy|Watchdog\w*"
    r"|PIDFile|GuessMainPID|RemainAfterExit|FileDescriptorStore\w*|SuccessExitStatus|FinalKillSignal)$"
)
# Places that are there only while the service runs.
PATHS = re.compile(r"(NoExec|Exec|ReadWrite|ReadOnly|Inaccessible)Paths$")
HELP = ("-h", "--help")


def directives(text: str) -> list[tuple[str, str]]:
    """Directives of [Service], in their order, from what `systemctl cat` prints."""
    read: list[tuple[str, str]] = []
    section = ""
    lines = iter(text.splitlines())
    for line in lines:
        line = line.strip()
        if line.startswith(("#", ";")):
            continue
        while line.endswith("\\"):
            line = f"{line[:-1].rstrip()} {next(lines, '').strip()}"
        if re.fullmatch(r"\[\w+\]", line):
            section = line
        elif section == "[Service]" and "=" in line:
            name, _, value = line.partition("=")
            read.append((name.strip(), value.strip()))
    return read


def properties(text: str) -> list[str]:
    """What of a unit holds for a command that is run beside it, as `Name=value`."""
    kept = []
    for name, value in directives(text):
        if OTHERS.match(name):
            continue
        if PATHS.match(name):
            value = " ".join(re.sub(r"^(-?)(\+?)", r"-\2", path) for path in value.split())
        kept.append(f"{name}={value}")
    return kept


def past_the_pooler(entries: Sequence[str]) -> list[str]:
    """The same for a command that has its session with the database to itself.

    A migration waits for locks, and a copy is one long transaction: neither is to have a connection
    that the processes of the application share. Where there is a second credential for that, the
    command finds it under the name of the first.
    """
    pooled, direct = (
        f"LoadCredential={name}:" for name in (Database.credential, Database.credential + DIRECT)
    )
    found = [entry.removeprefix(direct) for entry in entries if entry.startswith(direct)]
    return [pooled + found[0] if found and entry.startswith(pooled) else entry for entry in entries]


def release_directory(application: Application, release: str | None) -> Path:
    """The directory of a release, or of the live one. Raises RefusedError if it cannot be used."""
    if release is None:
        release = application.live()
        if release is None:
            raise RefusedError(
                f"There is no {application.current}: no release is live. Deploy one, or name one "
                f"with --release."
            )
    elif not re.fullmatch(r"\w[\w.-]*", release):
        raise UsageError(f"--release is {release!r}. Name a directory of {application.releases}.")
    path = application.releases / release
    python = path / "bin" / "python"
    if python.is_symlink() and not python.exists():
        raise RefusedError(
            f"Release {release} cannot start: its interpreter {os.path.realpath(python)} is not on "
            "this host. Run site.yml, or deploy its revision again, which builds it for the Python "
            "of this host."
        )
    if not python.exists():
        try:
            names = sorted(name for name in os.listdir(application.releases) if name[0] != ".")
        except OSError:
            names = []
        there = ", ".join(names) or "none"
        raise RefusedError(f"There is no release {release}. On this host are: {there}.")
    return path


def program(directory: Path, word: str) -> str:
    """The path of a program: of the release in that directory, or else of the host.

    Raises RefusedError where neither has it.
    """
    if "/" in word:
        return os.path.join(directory, "app", word)
    own = directory / "bin" / word
    # A link stays as it is: Python finds its packages by where its program lies.
    path = str(own) if own.exists() else shutil.which(word)
    if path is None:
        raise RefusedError(f"Neither {directory / 'bin'} nor PATH has a program {word!r}.")
    return path


def command(
    application: Application,
    unit: str,
    directory: Path,
    words: Sequence[str],
    time_limit_seconds: int = 0,
    variables: Mapping[str, str] | None = None,
) -> list[str]:
    """The command line that runs a program of a release.

    Args:
        unit: the text of the application's unit.
        directory: of the release.
        words: the program and its arguments.
        time_limit_seconds: 0 for none.
        variables: of its environment, besides those of the unit, whose files go before.
    """
    settings = [f"--property={entry}" for entry in past_the_pooler(properties(unit))]
    settings.append(f"--property=WorkingDirectory={directory}/app")
    settings.append(f"--property=Description={os.path.basename(words[0])} of {application.name}")
    # systemd takes no percent sign for a specifier here, and no dollar for a variable.
    settings += [f"--setenv={name}={value}" for name, value in (variables or {}).items()]
    if time_limit_seconds:
        # The caller's end would not be the command's.
        settings.append(f"--property=RuntimeMaxSec={time_limit_seconds}")
        settings.append("--property=TimeoutStopSec=5")
    return [
        # A terminal if the caller has one, else its pipes.
        *("systemd-run", "--quiet", "--wait", "--collect", "--pty", "--pipe"),
        "--service-type=exec",
        *settings,
        "--",
        # systemd would put in a variable for what follows a dollar.
        *(word.replace("$", "$$") for word in (program(directory, words[0]), *words[1:])),
    ]


def run(
    application: Application,
    words: Sequence[str],
    *,
    release: str | None = None,
    time_limit_seconds: int = 0,
    variables: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a program of a release as the service would; wait for its end.

    Args:
        words: the program, by its name or path, and its arguments.
        release: the live one if left out.
        time_limit_seconds: after which it is ended, with the exit code 124 and a message behind
            what it wrote to standard error; 0 for no limit.
        variables: of its environment, besides those of the unit.
        options: of `subprocess.run`.

    Raises RefusedError where it cannot be started.
    """
    if os.geteuid() != 0:
        raise RefusedError("Only root can run a command as the application: use sudo.")
    directory = release_directory(application, release)
    shown = subprocess.run(
        ["systemctl", "cat", application.unit], capture_output=True, text=True, check=False
    )
    if shown.returncode:
        raise RefusedError(f"{application.unit} cannot be read: {shown.stderr.strip()}")
    argv = command(application, shown.stdout, directory, words, time_limit_seconds, variables)
    start = time.monotonic()
    result: subprocess.CompletedProcess[Any] = subprocess.run(argv, **{"check": False, **options})
    late = time_limit_seconds and time.monotonic() - start >= time_limit_seconds
    if result.returncode and late:
        result.returncode = ENDED
        _explain(result, f"Not done within {time_limit_seconds} s, so it was ended.\n")
    return result


def _explain(result: subprocess.CompletedProcess[Any], text: str) -> None:
    """Add a line to what a command wrote to standard error."""
    if result.stderr is None:
        sys.stderr.write(text)
    elif isinstance(result.stderr, bytes):
        result.stderr += text.encode()
    else:
        result.stderr += text


def parse(words: Sequence[str]) -> tuple[str | None, int, dict[str, str], list[str]]:
    """The release that is asked for, if any, the time limit, 0 for none, variables, the command.

    Only options in front of the command are of this program.
    """
    release, time_limit, rest = None, 0, list(words)
    variables: dict[str, str] = {}
    options = re.compile(r"--(release|time-limit|env)(=(.*))?", re.DOTALL)
    while rest and (match := options.fullmatch(rest[0])):
        value = match[3] if match[2] else "".join(rest[1:2])
        rest = rest[1:] if match[2] else rest[2:]
        if match[1] == "release":
            release = value
        elif match[1] == "env":
            name, given, text = value.partition("=")
            if not given or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
                raise UsageError(f"--env is {value!r}. Write NAME=VALUE.")
            variables[name] = text
        elif re.fullmatch(r"[1-9]\d{0,5}", value):
            time_limit = int(value)
        else:
            raise UsageError(f"--time-limit is {value!r}. Give a number of seconds, such as 60.")
    return release, time_limit, variables, rest[1:] if rest[:1] == ["--"] else rest


def pass_on(application: Application, verb: str, words: Sequence[str]) -> int:
    """Run the command of `exec` or `flask`; return its exit code."""
    usage = (__doc__ or "").replace("<name>", application.name).strip()
    if words and words[0] in HELP:
        print(usage)
        return DONE
    release, time_limit, variables, rest = parse(words)
    if not rest:
        print(usage, file=sys.stderr)
        return USAGE
    whole = rest if verb == "exec" else application.words(verb, *rest)
    done = run(
        application, whole, release=release, time_limit_seconds=time_limit, variables=variables
    )
    return done.returncode
