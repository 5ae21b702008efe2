"""restore: not supported; said by name, so that callers know."""

from __future__ import annotations

import argparse

from trivet.base.error import Unsupported


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("words", nargs=argparse.REMAINDER)


def run(arguments: argparse.Namespace) -> int:
    """Refuse."""
    raise Unsupported("checkpoints of containers are not supported")
