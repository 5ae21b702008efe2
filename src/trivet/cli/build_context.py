"""What `build` sends: a directory without what .dockerignore names, a tar, or the address of either."""

from __future__ import annotations

import io
import os
import stat
from argparse import Namespace
from collections.abc import Callable
from typing import NamedTuple

from trivet.base.error import InvalidArgument, NotFound
from trivet.build.ignore import Ignore
from trivet.cli import terminal
from trivet.cli.command import Misuse
from trivet.cli.progress import Transfer
from trivet.client.connection import Writer
from trivet.client.pack import Packer

DOCKERFILES = ("Dockerfile", "Containerfile")
IGNORE_FILE = ".dockerignore"
REMOTE = ("http://", "https://", "git://", "ssh://", "git@")


class Source(NamedTuple):
    """What is built: the Dockerfile's name in the context, who writes the context's tar, what the engine fetches."""

    dockerfile: str
    produce: Callable[[Writer], None]
    remote: str = ""


class NoDockerfile(NotFound):
    """There is nothing to build from."""


def find_source(args: Namespace, transfer: Transfer) -> Source:
    """Tell what the command line means."""
    if args.context == "-":
        return _from_input(args, transfer)
    if args.context.startswith(REMOTE):
        return _from_elsewhere(args)
    return _from_directory(args)


def send_directory(top: str, writer: Writer) -> None:
    """Send a directory as a named context, without what its .dockerignore names."""
    path = os.path.join(top, IGNORE_FILE)
    ignore = Ignore.read(_text(path), name=path)
    with Packer(writer) as archive:
        _add_tree(archive, top, ignore, needed=set(), skip=False)


def _from_elsewhere(args: Namespace) -> Source:
    """Have the engine fetch the context; a Dockerfile that lies here goes along."""
    local = args.file if args.file and os.path.isfile(args.file) else None
    name = f".dockerfile.{os.urandom(8).hex()}" if local else args.file or DOCKERFILES[0]

    def produce(writer: Writer) -> None:
        with Packer(writer) as archive:
            if local is not None:
                archive.text(name, _content(local))

    return Source(name, produce, args.context)


def _from_directory(args: Namespace) -> Source:
    top = args.context
    if not os.path.isdir(top):
        what = "is not a directory" if os.path.lexists(top) else "does not exist"
        raise InvalidArgument(f"cannot build: context {args.context} {what}")
    if args.file == "-":
        return _with_text(top, _input().read())
    if args.file and os.path.exists(args.file) and stat.S_ISFIFO(os.stat(args.file).st_mode):  # -f <(command)
        return _with_text(top, _content(args.file))
    dockerfile = _find(top, args.file)
    ignore_file = dockerfile + IGNORE_FILE
    ignore_file = ignore_file if os.path.isfile(ignore_file) else os.path.join(top, IGNORE_FILE)
    ignore_text = _text(ignore_file)
    Ignore.read(ignore_text, name=ignore_file)  # a mistake in it is told before anything is sent
    inside = _relative(dockerfile, top)
    name = inside or f".dockerfile.{os.urandom(8).hex()}"

    def produce(writer: Writer) -> None:
        with Packer(writer) as archive:
            if inside is None:
                archive.text(name, _content(dockerfile))
                # The engine applies the ignore file again: a Dockerfile from elsewhere is no part of the context.
                archive.text(IGNORE_FILE, f"{ignore_text}\n{name}\n{IGNORE_FILE}\n".encode())
            _add_tree(
                archive,
                top,
                Ignore.read(ignore_text),
                needed={name, name + IGNORE_FILE, IGNORE_FILE},
                skip=inside is None,
            )

    return Source(name, produce)


def _from_input(args: Namespace, transfer: Transfer) -> Source:
    """Take a context's tar, or else the text of a Dockerfile, from standard input."""
    source = _input()
    if _is_tar(source.peek(512)):
        return Source(args.file or DOCKERFILES[0], transfer.sender(source))
    text = source.read()

    def produce(writer: Writer) -> None:
        with Packer(writer) as archive:
            archive.text(DOCKERFILES[0], text)

    return Source(DOCKERFILES[0], produce)


def _input() -> io.BufferedReader:
    if terminal.is_terminal(0):
        raise Misuse("standard input is a terminal", hint="redirect a Dockerfile or a tar, or name a directory")
    return io.BufferedReader(io.FileIO(0, closefd=False))


def _with_text(top: str, dockerfile: bytes) -> Source:
    """Send a directory with a Dockerfile from standard input."""
    name, text = f".dockerfile.{os.urandom(8).hex()}", _text(os.path.join(top, IGNORE_FILE))

    def produce(writer: Writer) -> None:
        with Packer(writer) as archive:
            archive.text(name, dockerfile)
            archive.text(IGNORE_FILE, f"{text}\n{name}\n{IGNORE_FILE}\n".encode())
            _add_tree(archive, top, Ignore.read(text), needed={IGNORE_FILE}, skip=True)

    return Source(name, produce)


def _is_tar(head: bytes) -> bool:
    compressed = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
    return head[257:262] == b"ustar" or head.startswith(compressed)


def _find(top: str, name: str | None) -> str:
    if name is not None:
        path = next((path for path in (name, os.path.join(top, name)) if os.path.isfile(path)), None)
        if path is None:
            raise NoDockerfile(f"cannot build: there is no Dockerfile {name}", hint="-f is relative to where you are")
        return path
    path = next((path for each in DOCKERFILES if os.path.isfile(path := os.path.join(top, each))), None)
    if path is None:
        raise NoDockerfile(f"cannot build: {top} holds no Dockerfile", hint="name one with -f")
    return path


def _relative(dockerfile: str, top: str) -> str | None:
    """Name the Dockerfile within the context; None when it lies outside, or is a link to elsewhere."""
    path = os.path.relpath(os.path.realpath(dockerfile), os.path.realpath(top))
    return None if path.startswith("../") else path


def _text(path: str) -> str:
    """Read an ignore file; "" when there is none."""
    return _content(path).decode(errors="replace") if os.path.isfile(path) else ""


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _add_tree(archive: Packer, top: str, ignore: Ignore, *, needed: set[str], skip: bool) -> None:
    """Add what the ignore file lets through, sorted; `needed` goes along unless `skip` says it is there."""
    pending = [""]
    while pending:
        directory = pending.pop()
        for entry in sorted(os.scandir(os.path.join(top, directory)), key=lambda entry: entry.name):
            path = f"{directory}/{entry.name}" if directory else entry.name
            is_directory = entry.is_dir(follow_symlinks=False)
            excluded = ignore.excludes(path)
            if is_directory and (ignore.may_keep_below(path) or any(name.startswith(f"{path}/") for name in needed)):
                pending.append(path)
            if path in needed:
                excluded = skip
            if not excluded:
                archive.add(entry.path, path)
