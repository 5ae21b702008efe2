"""spec: write an example config.json."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from trivet.base.error import AlreadyExists
from trivet.oci import runtime as oci
from trivet.runtime import example


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--rootless", action="store_true", help="for an ordinary user's container")
    parser.add_argument("--bundle", "-b", type=Path, default=Path(), help="where to write it (default: here)")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    made = example.rootless(os.geteuid(), os.getegid()) if arguments.rootless else example.spec()
    path = arguments.bundle / "config.json"
    try:
        with path.open("xb") as file:
            file.write(oci.encode(made) + b"\n")
    except FileExistsError as error:
        raise AlreadyExists(f"{path} already exists") from error
    return 0
