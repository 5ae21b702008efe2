"""`build`: send the context, show the steps."""

from __future__ import annotations

import io
import os
import secrets
import tarfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from trivet.base.error import InvalidArgument, NotFound
from trivet.build.ignore import Ignore
from trivet.cli import terminal, value
from trivet.cli.command import Command, Misuse, flag, option
from trivet.cli.context import Context
from trivet.cli.option import DIRECTORY, FILE, repeated
from trivet.cli.output import JSON, write_json
from trivet.cli.progress import Transfer, choose, follow
from trivet.cli.prune import prune_command
from trivet.client.archive import tar_writer
from trivet.client.connection import Writer
from trivet.client.schema import BuildRequest

DOCKERFILES = ("Dockerfile", "Containerfile")
IGNORE_FILE = ".dockerignore"


class Source(NamedTuple):
    """What is built: the Dockerfile's name in the context, and who writes the context's tar."""

    dockerfile: str
    produce: Callable[[Writer], None]


class NoDockerfile(NotFound):
    """There is nothing to build from."""


def build(context: Context, args: Namespace) -> int:
    """Build an image."""
    transfer = Transfer(choose(quiet=args.quiet, style=args.progress), "context", "sending")
    source = _from_input(args, transfer) if args.context == "-" else _from_directory(args)
    request = BuildRequest(
        tags=args.tag,
        dockerfile=source.dockerfile,
        target=args.target,
        build_args=_arguments(args.build_arg),
        labels=dict(args.label),
        network=args.network,
        no_cache=args.no_cache,
        pull=args.pull,
        platform=args.platform,
        timestamp=_timestamp(),
    )
    steps = context.client.images.build(lambda writer: source.produce(transfer.counting(writer)), request)
    result = follow(steps, display=transfer)
    if args.iidfile:
        Path(args.iidfile).write_text(str(result.get("id", "")))
    if args.json:
        write_json(result)
    else:
        print(result.get("id", ""))
    return 0


def _from_directory(args: Namespace) -> Source:
    top = Path(args.context)
    if not top.is_dir():
        what = "is not a directory" if top.exists() else "does not exist"
        raise InvalidArgument(f"cannot build: context {args.context} {what}")
    dockerfile = _find(top, args.file)
    ignore_file = dockerfile.with_name(dockerfile.name + IGNORE_FILE)
    ignore_file = ignore_file if ignore_file.is_file() else top / IGNORE_FILE
    ignore_text = ignore_file.read_text(errors="replace") if ignore_file.is_file() else ""
    Ignore.read(ignore_text, name=str(ignore_file))  # a mistake in it is told before anything is sent
    inside = _relative(dockerfile, top)
    name = inside or f".dockerfile.{secrets.token_hex(8)}"

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
    if terminal.is_terminal(0):
        raise Misuse("standard input is a terminal", hint="redirect a Dockerfile or a tar, or name a directory")
    source = io.BufferedReader(io.FileIO(0, closefd=False))
    if _is_tar(source.peek(512)):
        return Source(args.file or DOCKERFILES[0], transfer.sender(source))
    text = source.read()

    def produce(writer: Writer) -> None:
        with tar_writer(writer) as archive:
            _add_text(archive, DOCKERFILES[0], text)

    return Source(DOCKERFILES[0], produce)


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


def _arguments(items: list[str]) -> dict[str, str]:
    """Read `--build-arg KEY[=VALUE]`; without a value it comes from the environment, if it is there."""
    found = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not key:
            raise Misuse(f"--build-arg: {item!r} has no name; write KEY=VALUE")
        if equals or key in os.environ:
            found[key] = text if equals else os.environ[key]
    return found


def _timestamp() -> int | None:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if text and not text.isdecimal():
        raise Misuse(f"SOURCE_DATE_EPOCH: {text!r} is not a number of seconds")
    return int(text) if text else None


COMMANDS = {
    "build": Command(
        build,
        (
            repeated("-t", "--tag", metavar="NAME[:TAG]", help="name the image"),
            option("-f", "--file", metavar="FILE", help="Dockerfile (default: CONTEXT/Dockerfile)", complete=FILE),
            repeated("--build-arg", metavar="KEY[=VALUE]", help="value of an ARG"),
            option("--target", metavar="STAGE", default="", help="stop at this stage"),
            repeated("--label", metavar="KEY[=VALUE]", type=value.label, help="add a label to the image"),
            flag("--no-cache", help="run every step again"),
            flag("--pull", help="look for newer base images"),
            option("--network", metavar="NETWORK", default="", help="network of RUN: a name, host or none"),
            option("--platform", metavar="OS/ARCH", default="", help="platform to build for"),
            option(
                "--progress", choices=("auto", "plain", "tty"), default="auto", help="how to show it (default: auto)"
            ),
            option("--iidfile", metavar="FILE", help="write the image's id to a file", complete=FILE),
            flag("-q", "--quiet", help="print only the id"),
            *JSON,
            option(
                "context",
                metavar="CONTEXT",
                help="directory, or - for a Dockerfile or a tar on standard input",
                complete=DIRECTORY,
            ),
        ),
        about=("What .dockerignore names isn't sent. SOURCE_DATE_EPOCH, when set, is every time in the image."),
        examples=(
            ("trivet build -t web:1 .", ""),
            ("trivet build -f docker/web.Dockerfile --build-arg VERSION=3 .", ""),
            ("echo 'FROM scratch' | trivet build -t empty -", ""),
        ),
    ),
    "prune": prune_command(("build",), "trivet builder prune"),
}
