"""create: set a container up; its program waits for `start`."""

from __future__ import annotations

import argparse

from trivet.runtime import program
from trivet.runtime.verb import way


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    way.add_bundle(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    chosen = way.read(arguments, attached=False, wait=True)
    container, begun = program.create(arguments.root, arguments.id, arguments.bundle, chosen, detached=True)
    try:
        way.write_pid(arguments.pid_file, begun.pid)
    except OSError:
        container.remove(chosen.warn)
        raise
    way.keep_exec(container, chosen)
    return 0
