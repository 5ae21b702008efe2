"""Archives that commands read and write, and what they say afterwards."""

from __future__ import annotations

import contextlib
import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from trivet.cli import terminal
from trivet.cli.attach import write_all
from trivet.cli.command import Misuse
from trivet.cli.output import write_json
from trivet.cli.progress import Transfer, choose
from trivet.client.connection import Response

_BLOCK = 16384
_ZEROS = bytes(_BLOCK)


def result_of(args: Namespace, result: dict[str, object], key: str) -> None:
    """Print one field of a result, or with --json all of it."""
    if args.json:
        write_json(result)
    else:
        print(result.get(key, ""))


@contextlib.contextmanager
def input_(name: str | None) -> Iterator[BinaryIO]:
    """Open a file to read, or standard input unless that is a terminal."""
    if name is not None:
        with Path(name).open("rb") as source:
            yield source
        return
    if terminal.is_terminal(0):
        raise Misuse("standard input is a terminal", hint="name a file with -i, or redirect one")
    yield terminal.standard_input()


@contextlib.contextmanager
def output_(name: str | None) -> Iterator[int]:
    """Open a descriptor to write to; a named file appears only when it is complete."""
    if name is None:
        if terminal.is_terminal(1):
            raise Misuse("a tar archive is not for a terminal", hint="name a file with -o, or redirect")
        yield 1
        return
    path = Path(name)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as output:
            yield output.fileno()
            os.fsync(output.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_out(response: Response, output: int, args: Namespace) -> None:
    """Copy an answer to a descriptor, with progress unless `args` say otherwise; in a new file zeros become holes."""
    transfer = Transfer(choose(quiet=args.quiet), args.output or "standard output", "writing")
    write = write_sparsely if args.output else write_all
    for chunk in response.chunks():
        write(output, chunk)
        transfer.count(len(chunk))
    if args.output:
        os.ftruncate(output, os.lseek(output, 0, os.SEEK_CUR))  # it may end in a hole
    transfer.close()


def write_sparsely(output: int, data: bytes) -> None:
    """Write to a new file, and leave out blocks of nothing but zeros, of which disks are full."""
    begun = 0
    for start in range(0, len(data) - _BLOCK + 1, _BLOCK):
        if data.startswith(_ZEROS, start):
            write_all(output, data[begun:start])
            os.lseek(output, _BLOCK, os.SEEK_CUR)
            begun = start + _BLOCK
    write_all(output, data[begun:])
