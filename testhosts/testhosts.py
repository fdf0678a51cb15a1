#!/usr/bin/env python3
"""Test hosts: containers that run a distribution's real systemd, reached over SSH.

Results are JSON on standard output, progress goes to standard error. See testhosts/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import images
from engine import CHECKOUT, Engine, TestHostsError
from hosts import USER, Hosts, Spec, read_specs


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="testhosts.py", description=(__doc__ or "").splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    image = commands.add_parser("image", help="make base images unless they are there")
    image.add_argument("names", nargs="+", choices=sorted(images.RECIPES_BY_NAME), metavar="NAME")
    image.add_argument("--fresh", action="store_true", help="make them anew, from today's packages")

    scoped = argparse.ArgumentParser(add_help=False)
    scoped.add_argument(
        "--scope",
        default="",
        help="hosts that come and go together; labels and network go by it",
    )
    scoped.add_argument("--network", help="name of the network (default: one per scope)")

    up = commands.add_parser("up", parents=[scoped], help="have hosts running; prints them")
    up.add_argument("name", nargs="?", help="the host's name")
    up.add_argument("--image", help="its base image")
    up.add_argument(
        "--alias", action="append", default=[], help="another name of it for the others"
    )
    up.add_argument("--publish", action="append", default=[], metavar="127.0.0.1:8443:443")
    up.add_argument(
        "--from",
        dest="file",
        metavar="FILE",
        help="several: a JSON list of {name, image, aliases, publish}; `-` for standard input. "
        "Each container is then called SCOPE-NAME",
    )

    down = commands.add_parser("down", parents=[scoped], help="remove hosts and their network")
    down.add_argument("names", nargs="*", help="which (default: all of the scope)")

    commands.add_parser("list", parents=[scoped], help="this checkout's hosts")
    commands.add_parser("clean", help="remove all hosts of this checkout, and the images")
    commands.add_parser("checkout", help="the short name that tells this checkout from others")
    for name, what in (
        ("reboot", "stop a host and start it again"),
        ("power-cut", "kill everything that runs on a host at once, and start it again"),
        ("shell", "log in on a host, as the user that Ansible uses"),
        ("journal", "print the end of a host's journal"),
        ("acme-ca", "print the path of the CA of an ACME server's own HTTPS"),
        ("acme-root", "print the path of the root of what an ACME server issues"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("name")
        if name == "journal":
            command.add_argument("--lines", type=int, default=200)
    return parser.parse_args(arguments)


def say(line: str) -> None:
    """Tell the user something while it happens."""
    print(line, file=sys.stderr, flush=True)


def wanted(options: argparse.Namespace) -> list[Spec]:
    """The hosts that an `up` asks for.

    Raises:
        TestHostsError: the command line or the file is incomplete.
    """
    if options.file:
        if not options.scope:
            raise TestHostsError("--from needs a --scope.")
        text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text()
        return read_specs(text, options.scope)
    if not options.name or not options.image:
        raise TestHostsError("Name a host and its --image, or give several with --from.")
    return [Spec(options.name, options.image, tuple(options.alias), tuple(options.publish))]


def shell(engine: Engine, hosts: Hosts, name: str) -> None:
    """Become a shell on a host.

    Raises:
        TestHostsError: there is no such host.
    """
    known = [str(host["name"]) for host in hosts.listed()]
    if name not in known:
        there = f"there are {', '.join(known)}" if known else "there is none; `make up` makes one"
        raise TestHostsError(f"There is no host {name} of this checkout: {there}.")
    command = engine.command("exec", "--interactive", "--tty", name, "su", "--login", USER)
    os.execvp(command[0], command)


def run(options: argparse.Namespace) -> None:
    """Do what the command line says.

    Raises:
        TestHostsError: with a message for the user.
    """
    if options.command == "checkout":
        print(CHECKOUT)
        return
    # Whoever has no podman has no hosts and no images.
    if options.command == "clean" and not shutil.which("podman"):
        return
    engine = Engine()
    if options.command == "image":
        print("\n".join(images.ensure_all(engine, options.names, say, options.fresh)))
        return
    scope = getattr(options, "scope", "")
    network = getattr(options, "network", None) or scope or f"testhosts-{CHECKOUT}"
    hosts = Hosts(engine, scope, network, say)
    if options.command == "up":
        found = hosts.up(wanted(options))
        print(json.dumps(found if options.file else found[0], indent=2))
    elif options.command == "down":
        if not options.names and not options.scope:
            raise TestHostsError("Name the hosts to remove, or a --scope.")
        print(json.dumps(hosts.down(options.names)))
    elif options.command == "clean":
        for name in hosts.down():
            say(f"host {name}: removed")
        for name in images.remove_all(engine):
            say(f"image {name}: removed")
    elif options.command == "list":
        print(json.dumps(hosts.listed(), indent=2))
    elif options.command == "reboot":
        hosts.reboot(options.name)
    elif options.command == "power-cut":
        hosts.power_cut(options.name)
    elif options.command == "shell":
        shell(engine, hosts, options.name)
    elif options.command == "journal":
        print(hosts.journal(options.name, options.lines))
    elif options.command == "acme-ca":
        print(hosts.acme_ca(options.name))
    elif options.command == "acme-root":
        print(hosts.acme_root(options.name))


def main() -> int:
    """Run, and turn what went wrong into a message."""
    try:
        run(parse())
    except (TestHostsError, OSError, subprocess.CalledProcessError) as error:
        print(f"testhosts: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
