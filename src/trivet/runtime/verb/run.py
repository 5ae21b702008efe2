"""run: create, start and, unless detached, wait for the end, then delete."""

from __future__ import annotations

import argparse

from trivet.runtime import program
from trivet.runtime.relay import wait
from trivet.runtime.verb import way


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    way.add_bundle(parser)
    parser.add_argument("--detach", "-d", action="store_true", help="return when the program runs")
    parser.add_argument("--keep", action="store_true", help="don't delete the container at the end")
    parser.add_argument("--no-subreaper", action="store_true", help="accepted; the program is a child anyway")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    chosen = way.read(arguments, attached=not arguments.detach)
    container, begun = program.create(arguments.root, arguments.id, arguments.bundle, chosen, detached=arguments.detach)
    keep = False
    try:
        way.write_pid(arguments.pid_file, begun.pid)
        if not begun.started:
            program.start(container)
        keep = arguments.detach or arguments.keep
        return 0 if arguments.detach else wait(begun.pid, begun.master)
    finally:
        if not keep:
            container.remove(chosen.warn)
