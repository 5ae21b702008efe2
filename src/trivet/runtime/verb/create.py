"""create: set a container up; its program waits for `start`."""

from __future__ import annotations

import argparse

from trivet.runtime import program, recording
from trivet.runtime.verb import way


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    way.add_bundle(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    said, chosen = way.listening(way.read(arguments, attached=False, wait=True), arguments.journal)
    container, begun = program.create(arguments.root, arguments.id, arguments.bundle, chosen, detached=True)
    try:
        way.write_pid(arguments.pid_file, begun.pid)
    except OSError:
        container.remove(chosen.warn)
        raise
    way.keep_exec(container, chosen)
    if not said and way.ordinary(arguments):
        recording.keep(
            container,
            lambda one: program.plan_of(one, chosen),
            lambda one: program.limits_of(one, chosen),
            created=True,
        )
    return 0
