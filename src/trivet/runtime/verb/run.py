"""run: create, start and, unless detached, carry the streams until the end, then delete."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trivet.oci.runtime import Process
from trivet.runtime.container import Container
from trivet.runtime.relay import begin, relay, size
from trivet.runtime.verb.create import write_pid


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id")
    parser.add_argument("--bundle", "-b", type=Path, default=Path(), help="directory of config.json (default: here)")
    parser.add_argument("--pid-file", type=Path, help="write the program's pid there")
    parser.add_argument("--detach", "-d", action="store_true", help="return when the program runs")
    parser.add_argument("--keep", action="store_true", help="don't delete the container at the end")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    attached = not arguments.detach
    container, channel = Container.create(
        arguments.root, arguments.id, arguments.bundle, stdin=attached, size=size() if attached else None
    )
    started = False
    try:
        with channel:
            write_pid(arguments.pid_file, container.status()[1])
            channel.attach(stdin=attached, stdout=attached, stderr=attached)
            process = container.kept.spec.process or Process(cwd="/")
            begin(channel, process)
            started = True
            if arguments.detach:
                return 0
            sys.stdout.flush()
            return relay(channel, terminal=process.terminal)
    finally:
        if not started or not (arguments.detach or arguments.keep):
            container.remove()
