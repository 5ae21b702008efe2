"""checkpoint: not supported; said by name, so that callers know."""

from __future__ import annotations

import argparse

from trivet.base.error import Unsupported
from trivet.runtime.container import Container


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("words", nargs=argparse.REMAINDER)


def run(arguments: argparse.Namespace) -> int:
    """Refuse."""
    for word in arguments.words[-1:]:
        Container.find(arguments.root, word)
    raise Unsupported("checkpoints of containers are not supported")
