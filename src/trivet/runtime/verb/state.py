"""state: print a container's state as JSON."""

from __future__ import annotations

import argparse
import sys

import msgspec

from trivet.runtime.container import Container


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    container = Container.find(arguments.root, arguments.id)
    fields = msgspec.to_builtins(container.state()) | {"rootfs": container.kept.root, "created": container.created}
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(fields), indent=2).decode() + "\n")
    return 0
