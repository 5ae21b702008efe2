"""start: let the program of a created container begin."""

from __future__ import annotations

import argparse

from trivet.runtime.container import Container
from trivet.runtime.relay import begin


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    container = Container.find(arguments.root, arguments.id)
    container.require("created")
    with container.attach() as channel:
        channel.attach(stdout=False, stderr=False)
        begin(channel, container.kept.spec.process)
    return 0
