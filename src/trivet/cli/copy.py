"""`cp`: files between the host and an instance, with Docker's rules about what is copied onto what."""

from __future__ import annotations

import posixpath
import stat
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

from trivet.base.error import Conflict, Corrupt, NotFound
from trivet.cli import terminal
from trivet.cli.argument import FILE
from trivet.cli.attach import write_all
from trivet.cli.command import Command, Misuse, flag, option
from trivet.cli.context import Context
from trivet.cli.progress import Transfer, choose
from trivet.client.archive import pack, unpack
from trivet.client.connection import Response, Writer
from trivet.client.schema import PathStat

MOST_LINKS = 20


class Target(NamedTuple):
    """Where a copy goes: into which directory, and under which name ("": only the source's content)."""

    directory: str
    name: str


def copy(context: Context, args: Namespace) -> int:
    """Copy in the direction the arguments tell."""
    source, target = _split(args.source), _split(args.target)
    if (source is None) == (target is None):
        raise Misuse("exactly one of the two must be INSTANCE:PATH", hint="write a local path with a colon as ./a:b")
    if source is not None:
        _copy_out(context, args, *source)
    elif target is not None:
        _copy_in(context, args, *target)
    return 0


def place(source: str, *, source_is_directory: bool, target: str, target_mode: int | None) -> Target:
    """Decide where `source` goes when copied to `target`, whose st_mode is None when it isn't there."""
    content_only = source.rstrip("/").endswith("/.") or source in (".", "/")
    name = posixpath.basename(posixpath.normpath(source))
    path = target.rstrip("/") or "/"
    if target_mode is not None and stat.S_ISDIR(target_mode):
        return Target(path, "" if source_is_directory and content_only else name)
    if target_mode is not None and source_is_directory:
        raise Conflict(f"cannot copy directory {source} onto file {target}")
    if target.endswith("/") and not source_is_directory:
        raise NotFound(f"cannot copy to {target}: there is no such directory")
    return Target(posixpath.dirname(path) or ".", posixpath.basename(path))


def _split(text: str) -> tuple[str, str] | None:
    ref, colon, path = text.partition(":")
    return (ref, path or "/") if colon and ref and "/" not in ref and not ref.startswith(".") else None


def _copy_out(context: Context, args: Namespace, ref: str, path: str) -> None:
    instances = context.client.instances
    instances.get(ref)  # tells a missing instance from a missing file
    found, path = _look(context, ref, path, follow=args.follow_link or path.endswith("/"))
    if found is None:
        raise NotFound(f"no such file in instance {ref}: {path}")
    if args.target == "-":
        if terminal.is_terminal(1):
            raise Misuse("a tar archive is not for a terminal", hint="redirect standard output")
        with instances.read_archive(ref, path) as response:
            for chunk in response.chunks():
                write_all(1, chunk)
        return
    target = Path(args.target)
    mode = target.stat().st_mode if target.exists() else None
    local = str(target.resolve()) if target.is_symlink() else args.target
    goal = place(path, source_is_directory=stat.S_ISDIR(found.mode), target=local, target_mode=mode)
    if not Path(goal.directory).is_dir():
        raise NotFound(f"cannot copy to {args.target}: there is no directory {goal.directory}")
    transfer = Transfer(choose(quiet=args.quiet), path, "copying")
    with instances.read_archive(ref, path) as response:
        skipped = _unpack(_CountedReader(response, transfer), goal, args)
    transfer.close()
    for name in skipped:
        context.warn(f"left out {name}: it is a device")


def _unpack(source: _CountedReader, goal: Target, args: Namespace) -> list[str]:
    try:
        return unpack(source, Path(goal.directory), goal.name, keep_owner=args.archive)
    except (NotADirectoryError, IsADirectoryError) as error:
        raise Conflict(f"cannot copy to {args.target}: {error.filename} is in the way") from error
    except FileNotFoundError as error:
        raise Corrupt(
            f"cannot copy to {args.target}: the archive refers to {error.filename}, which it lacks"
        ) from error


def _copy_in(context: Context, args: Namespace, ref: str, path: str) -> None:
    instances = context.client.instances
    transfer = Transfer(choose(quiet=args.quiet), args.source, "copying")
    if args.source == "-":
        if terminal.is_terminal(0):
            raise Misuse("standard input is a terminal", hint="give a tar archive there")
        instances.write_archive(ref, path, transfer.sender(terminal.standard_input()))
        transfer.close()
        return
    source = Path(args.source)
    if not source.exists() and not source.is_symlink():
        raise NotFound(f"no such file: {args.source}")
    is_directory = source.is_dir() and (args.follow_link or not source.is_symlink() or args.source.endswith("/"))
    instances.get(ref)
    found, resolved = _look(context, ref, path, follow=True)
    if found is not None:
        path = resolved
    mode = None if found is None else found.mode
    named = args.source if args.source.strip("/.") or args.source.startswith("/") else str(source.resolve())
    if args.source.endswith("/.") or args.source == ".":
        named += "" if named.endswith("/.") else "/."
    goal = place(named, source_is_directory=is_directory, target=path, target_mode=mode)

    def produce(writer: Writer) -> None:
        follow = args.follow_link or args.source.endswith("/")
        pack(source, goal.name or ".", transfer.counting(writer), keep_owner=args.archive, follow=follow)

    instances.write_archive(ref, goal.directory, produce)
    transfer.close()


def _look(context: Context, ref: str, path: str, *, follow: bool) -> tuple[PathStat | None, str]:
    """Look at a path inside, following links there; the second value is where that led."""
    for _ in range(MOST_LINKS):
        try:
            found = context.client.instances.stat_path(ref, path)
        except NotFound:
            return None, path
        if not (follow and stat.S_ISLNK(found.mode)):
            return found, path
        path = posixpath.join("/", posixpath.dirname(path.rstrip("/")), found.link)
    raise Conflict(f"too many symbolic links in instance {ref} at {path}")


class _CountedReader:
    def __init__(self, response: Response, transfer: Transfer) -> None:
        self._response = response
        self._transfer = transfer

    def read(self, size: int = -1, /) -> bytes:
        data = self._response.read(size)
        self._transfer.count(len(data))
        return data


COMMANDS = {
    "cp": Command(
        copy,
        (
            flag("-a", "--archive", help="keep owners and set-id bits"),
            flag("-L", "--follow-link", help="copy what a symbolic link points to"),
            flag("-q", "--quiet", help="no progress"),
            option(
                "source", metavar="SOURCE", help="path, INSTANCE:PATH, or - for a tar on standard input", complete=FILE
            ),
            option(
                "target", metavar="TARGET", help="path, INSTANCE:PATH, or - for a tar on standard output", complete=FILE
            ),
        ),
        about=(
            "A directory that exists takes the source into itself; DIR/. as the source means its content.\n"
            "What is copied into an instance belongs to root there, unless -a."
        ),
        examples=(
            ("trivet cp web:/etc/nginx ./conf", ""),
            ("trivet cp site/. web:/srv", "the content of site"),
            ("trivet cp web:/var/log - | tar tv", ""),
        ),
    ),
}
