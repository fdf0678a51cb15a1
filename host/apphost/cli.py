"""The command of an application: `sudo shop VERB`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from . import environment, seal
from .answer import Answer
from .application import Application
from .errors import DONE, USAGE, HostError

# Each verb is a module: `arguments(parser)` and `run(application, options)`, or for one that hands
# its words on `pass_on(application, words)`. The order is that of the help.
VERBS = {
    "Look": {
        "status": ("status", "its state: release, service, site (`{name}` alone shows it too)"),
        "releases": ("releases", "the releases of this host, and which one a rollback goes to"),
        "health": ("health", "what its health check sees, and has done lately"),
        "jobs": ("jobs", "background workers and timers: what runs, ran, and runs next"),
        "logs": ("logs", "the journal of all its processes"),
    },
    "Site": {
        "maintenance": ("maintenance", "have nginx answer its clients, while you work on it"),
    },
    "Releases": {
        "handover": ("handover.command", "make a release live, or load changed settings"),
        "rollback": ("rollback", "roll back to the previous release, on this host alone"),
    },
    "Data": {
        "migrate": ("data", "bring the data to what a release needs"),
        "backup": ("backup.command", "copy the data, and look at the copies"),
        "restore": ("backup.restore", "restore a copy of the data"),
    },
    "Commands of the application": {
        "exec": ("sandbox", "run a program of a release as the service would"),
        "flask": ("sandbox", "the same for `flask`"),
    },
}
# For units and playbooks.
HIDDEN = {
    "metrics": ("metrics", "what it measures, for node_exporter"),
    "stop": ("stop", "stop all that writes"),
}
# After these the next run of the playbook looks at everything.
CHANGING = frozenset({"handover", "rollback", "migrate", "restore", "stop"})
# With one of these a verb changes nothing, or what it changes is noted anyway.
LOOKING = ("check", "preview", "preview_new_database", "boot")


def overview(name: str) -> str:
    """The page that `help` shows."""
    lines = [f"usage: sudo {name} VERB [...]", ""]
    for title, verbs in VERBS.items():
        lines.append(f"{title}:")
        lines += [f"  {verb:12} {text.format(name=name)}" for verb, (_, text) in verbs.items()]
        lines.append("")
    lines += [
        f"`{name} VERB --help` says more. `--json` prints one JSON object.",
        "Exit code 0: done. 1: it failed. 2: refused, nothing was touched. 64: used wrongly.",
    ]
    return "\n".join(lines)


def module_of(verb: str) -> ModuleType | None:
    """The module of a verb; None if there is no such verb."""
    known = {key: value for verbs in (*VERBS.values(), HIDDEN) for key, value in verbs.items()}
    if verb not in known:
        return None
    return importlib.import_module(f"{__package__}.{known[verb][0]}")


def parser_of(application: Application, verb: str, module: ModuleType) -> argparse.ArgumentParser:
    """What reads the words of a verb."""
    parser = argparse.ArgumentParser(
        prog=f"{application.name} {verb}",
        description=(module.__doc__ or "").replace("<name>", application.name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(name: str, words: Sequence[str], host: Path = Path("/")) -> int:
    """Do what is asked; return the exit code.

    Args:
        name: of the application.
        words: of the command line, without the command.
        host: the root of the file system.
    """
    application = Application(name, host)
    verb, rest = (words[0], list(words[1:])) if words else ("status", [])
    if verb in ("help", "-h", "--help"):
        if not rest:
            print(overview(name))
            return DONE
        verb, rest = rest[0], ["--help"]
    module = module_of(verb)
    if module is None:
        print(f"{name}: there is no verb {verb!r}.\n\n{overview(name)}", file=sys.stderr)
        return USAGE
    as_json = "--json" in rest
    try:
        if hasattr(module, "pass_on"):
            as_json = False
            return int(module.pass_on(application, verb, rest))
        options = parser_of(application, verb, module).parse_intermixed_args(rest)
        as_json = options.json
        if verb in CHANGING and not any(vars(options).get(each) for each in LOOKING):
            # A run of the playbook that fails here must not leave the note of the one before. Units
            # that call this may not write there: who started them has done it, or nothing changes.
            with contextlib.suppress(OSError):
                seal.remove(application.host)
        answer: Answer = module.run(application, options)
    except (HostError, OSError) as error:
        code = error.code if isinstance(error, HostError) else HostError.code
        answer = Answer(sentence(str(error)), code=code)
    except SystemExit as end:
        # argparse says 2 for what sysexits.h calls 64.
        return USAGE if end.code else DONE
    except KeyboardInterrupt:
        return 130
    show(answer, f"{name} {verb}" if answer.code else "", as_json)
    return answer.code


def sentence(text: str) -> str:
    """With the full stop that a message ends with."""
    return text if text.endswith((".", "\n", "!", "?", ":")) or "\n" in text else f"{text}."


def show(answer: Answer, prefix: str, as_json: bool) -> None:
    """Print an answer; nobody has to be there to read it."""
    text = answer.json() if as_json else answer.words()
    if not text:
        return
    stream = sys.stderr if answer.code and not as_json else sys.stdout
    try:
        print(text if as_json or not prefix else f"{prefix}: {text}", file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def start() -> None:
    """What the command on the host calls."""
    environment.apply()
    name = Path(sys.argv[0]).name
    sys.exit(main(name, sys.argv[1:]))
