"""run: create, start and, unless detached, wait for the end, then delete."""

from __future__ import annotations

import argparse

from trivet.runtime import program, recording
from trivet.runtime.relay import wait
from trivet.runtime.verb import way


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    way.add_bundle(parser)
    parser.add_argument("--detach", "-d", action="store_true", help="return when the program runs")
    parser.add_argument("--keep", action="store_true", help="don't delete the container at the end")
    # with one dash as containerd writes it
    parser.add_argument("--no-subreaper", "-no-subreaper", action="store_true", help="accepted; it is a child anyway")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    said, chosen = way.listening(way.read(arguments, attached=not arguments.detach), arguments.journal)
    container, begun = program.create(arguments.root, arguments.id, arguments.bundle, chosen, detached=arguments.detach)
    keep = False
    try:
        way.write_pid(arguments.pid_file, begun.pid)
        if not begun.started:
            program.start(container)
        keep = arguments.detach or arguments.keep
        if arguments.detach:
            way.keep_exec(container, chosen)
        return 0 if arguments.detach else wait(begun.pid, begun.master)
    finally:
        if not keep:
            container.remove(chosen.warn)
        if begun.started and not said and way.ordinary(arguments):
            recording.keep(
                container,
                lambda one: program.plan_of(one, chosen),
                lambda one: program.limits_of(one, chosen),
            )
