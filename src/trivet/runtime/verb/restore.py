"""restore: bring a container back from a checkpoint and, unless detached, wait for its end, then delete it."""

from __future__ import annotations

import argparse

from trivet.runtime import restore
from trivet.runtime.relay import wait
from trivet.runtime.verb import saving, way


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    way.add_bundle(parser)
    saving.add(parser)
    parser.add_argument("--detach", "-d", action="store_true", help="return when the processes run")
    # with one dash as containerd writes it
    parser.add_argument("--no-subreaper", "-no-subreaper", action="store_true", help="accepted; it is a child anyway")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    chosen = way.read(arguments, attached=False)
    options = saving.read(arguments)
    container, begun = restore.restore(arguments.root, arguments.id, arguments.bundle, chosen, options)
    keep = False
    try:
        way.write_pid(arguments.pid_file, begun.pid)
        keep = arguments.detach
        return 0 if arguments.detach else wait(begun.pid, begun.master)
    finally:
        if not keep:
            container.remove(chosen.warn)
