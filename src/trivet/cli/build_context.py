"""What `build` sends: a directory without what .dockerignore names, a tar, or the address of either."""

from __future__ import annotations

import io
import os
import tarfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from trivet.base.error import InvalidArgument, NotFound
from trivet.build.ignore import Ignore
from trivet.cli import terminal
from trivet.cli.command import Misuse
from trivet.cli.progress import Transfer
from trivet.client.archive import tar_writer
from trivet.client.connection import Writer

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


def send_directory(top: Path, writer: Writer) -> None:
    """Send a directory as a named context, without what its .dockerignore names."""
    path = top / IGNORE_FILE
    ignore = Ignore.read(path.read_text(errors="replace") if path.is_file() else "", name=str(path))
    with tar_writer(writer) as archive:
        _add_tree(archive, top, ignore, needed=set(), skip=False)


def _from_elsewhere(args: Namespace) -> Source:
    """Have the engine fetch the context; a Dockerfile that lies here goes along."""
    local = Path(args.file) if args.file and Path(args.file).is_file() else None
    name = f".dockerfile.{os.urandom(8).hex()}" if local else args.file or DOCKERFILES[0]

    def produce(writer: Writer) -> None:
        with tar_writer(writer) as archive:
            if local is not None:
                _add_text(archive, name, local.read_bytes())

    return Source(name, produce, args.context)


def _from_directory(args: Namespace) -> Source:
    top = Path(args.context)
    if not top.is_dir():
        what = "is not a directory" if top.exists() else "does not exist"
        raise InvalidArgument(f"cannot build: context {args.context} {what}")
    if args.file == "-":
        return _with_text(top, _input().read())
    if args.file and Path(args.file).is_fifo():  # -f <(command)
        return _with_text(top, Path(args.file).read_bytes())
    dockerfile = _find(top, args.file)
    ignore_file = dockerfile.with_name(dockerfile.name + IGNORE_FILE)
    ignore_file = ignore_file if ignore_file.is_file() else top / IGNORE_FILE
    ignore_text = ignore_file.read_text(errors="replace") if ignore_file.is_file() else ""
    Ignore.read(ignore_text, name=str(ignore_file))  # a mistake in it is told before anything is sent
    inside = _relative(dockerfile, top)
    name = inside or f".dockerfile.{os.urandom(8).hex()}"

    def produce(writer: Writer) -> None:
        with tar_writer(writer) as archive:
            if inside is None:
                _add_text(archive, name, dockerfile.read_bytes())
                # The engine applies the ignore file again: a Dockerfile from elsewhere is no part of the context.
                _add_text(archive, IGNORE_FILE, f"{ignore_text}\n{name}\n{IGNORE_FILE}\n".encode())
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
        with tar_writer(writer) as archive:
            _add_text(archive, DOCKERFILES[0], text)

    return Source(DOCKERFILES[0], produce)


def _input() -> io.BufferedReader:
    if terminal.is_terminal(0):
        raise Misuse("standard input is a terminal", hint="redirect a Dockerfile or a tar, or name a directory")
    return io.BufferedReader(io.FileIO(0, closefd=False))


def _with_text(top: Path, dockerfile: bytes) -> Source:
    """Send a directory with a Dockerfile from standard input."""
    name, path = f".dockerfile.{os.urandom(8).hex()}", top / IGNORE_FILE
    text = path.read_text(errors="replace") if path.is_file() else ""

    def produce(writer: Writer) -> None:
        with tar_writer(writer) as archive:
            _add_text(archive, name, dockerfile)
            _add_text(archive, IGNORE_FILE, f"{text}\n{name}\n{IGNORE_FILE}\n".encode())
            _add_tree(archive, top, Ignore.read(text), needed={IGNORE_FILE}, skip=True)

    return Source(name, produce)


def _is_tar(head: bytes) -> bool:
    compressed = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
    return head[257:262] == b"ustar" or head.startswith(compressed)


def _find(top: Path, name: str | None) -> Path:
    if name is not None:
        path = next((path for path in (Path(name), top / name) if path.is_file()), None)
        if path is None:
            raise NoDockerfile(f"cannot build: there is no Dockerfile {name}", hint="-f is relative to where you are")
        return path
    path = next((top / name for name in DOCKERFILES if (top / name).is_file()), None)
    if path is None:
        raise NoDockerfile(f"cannot build: {top} holds no Dockerfile", hint="name one with -f")
    return path


def _relative(dockerfile: Path, top: Path) -> str | None:
    """Name the Dockerfile within the context; None when it lies outside, or is a link to elsewhere."""
    real, root = dockerfile.resolve(), top.resolve()
    return str(real.relative_to(root)) if real.is_relative_to(root) else None


def _add_tree(archive: tarfile.TarFile, top: Path, ignore: Ignore, *, needed: set[str], skip: bool) -> None:
    """Add what the ignore file lets through, sorted; `needed` goes along unless `skip` says it is there."""
    pending = [""]
    while pending:
        directory = pending.pop()
        for entry in sorted(os.scandir(top / directory), key=lambda entry: entry.name):
            path = f"{directory}/{entry.name}" if directory else entry.name
            is_directory = entry.is_dir(follow_symlinks=False)
            excluded = ignore.excludes(path)
            if is_directory and (ignore.may_keep_below(path) or any(name.startswith(f"{path}/") for name in needed)):
                pending.append(path)
            if path in needed:
                excluded = skip
            if not excluded:
                _add(archive, top / path, path)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    entry = archive.gettarinfo(path, arcname=name)
    if entry is None:  # a socket
        return
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    if entry.isreg():
        with path.open("rb") as content:
            archive.addfile(entry, content)
    else:
        archive.addfile(entry)


def _add_text(archive: tarfile.TarFile, name: str, text: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(text)
    archive.addfile(entry, io.BytesIO(text))
