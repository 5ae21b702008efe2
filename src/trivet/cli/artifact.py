"""Artifacts: files in registries, beside images or about them."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from trivet.cli import value
from trivet.cli.archive import result_of
from trivet.cli.argument import DIRECTORY, FILE, IMAGE, repeated
from trivet.cli.command import Command, Misuse, Option, flag, option
from trivet.cli.context import Context
from trivet.cli.output import FORMAT, JSON, Column, human_size, show, write_json
from trivet.cli.progress import follow
from trivet.client.archive import tar_writer, unpack
from trivet.client.connection import Response, Writer
from trivet.client.schema_image import Referrer

CREATED = "org.opencontainers.image.created"


class _File(NamedTuple):
    path: Path
    title: str
    kind: str


def push(context: Context, args: Namespace) -> int:
    """Send files."""
    return _send(context, args, attach=False)


def attach(context: Context, args: Namespace) -> int:
    """Send files about an image."""
    return _send(context, args, attach=True)


def _send(context: Context, args: Namespace, *, attach: bool) -> int:
    files = [_file(text) for text in args.files]
    steps = context.client.artifacts.push(
        args.reference,
        partial(_pack, files),
        [each.kind for each in files],
        artifact_type=args.artifact_type,
        annotations=dict(args.annotation),
        attach=attach,
    )
    result_of(args, follow(steps, quiet=args.quiet), "name" if attach else "digest")
    return 0


def _file(text: str) -> _File:
    """Read `PATH` or `PATH:MEDIA/TYPE`. Raises `Misuse`."""
    name, colon, kind = text.rpartition(":")
    if not colon or "/" not in kind or Path(text).exists():
        name, kind = text, ""
    path = Path(name)
    if not path.is_file():
        hint = "pack it first: tar -czf" if path.is_dir() else None
        raise Misuse(f"{name} is no file", hint=hint)
    title = os.path.normpath(name)
    return _File(path, path.name if path.is_absolute() or title.startswith("..") else title, kind)


def _pack(files: Sequence[_File], writer: Writer) -> None:
    with tar_writer(writer) as archive:
        for each in files:
            archive.add(each.path.resolve(), each.title)


def pull(context: Context, args: Namespace) -> int:
    """Fetch files."""
    goal = Path(args.output)
    goal.mkdir(parents=True, exist_ok=True)
    response: AbstractContextManager[Response] = context.client.artifacts.pull(args.reference)
    with response as stream:
        unpack(stream, goal, "", top=False)
    return 0


def referrers(context: Context, args: Namespace) -> int:
    """List what refers to an image."""
    rows = context.client.artifacts.referrers(args.reference, artifact_type=args.artifact_type)
    if args.format == "json":
        for row in rows:
            write_json(row)
        return 0
    columns: list[Column[Referrer]] = [
        Column("DIGEST", lambda row: row.digest),
        Column("TYPE", lambda row: row.artifact_type or row.media_type),
        Column("CREATED", lambda row: row.annotations.get(CREATED, "")),
        Column("SIZE", lambda row: human_size(row.size)),
    ]
    show(rows, columns, args, lambda row: row.digest)
    return 0


SENT: tuple[Option, ...] = (
    repeated("-a", "--annotation", metavar="KEY=VALUE", type=value.pair, help="of the whole"),
    flag("-q", "--quiet", help="no progress"),
    *JSON,
)
FILES: dict[str, Any] = {"metavar": "FILE[:TYPE]", "help": "file, perhaps with its media type", "complete": FILE}

COMMANDS = {
    "push": Command(
        push,
        (
            option("--artifact-type", metavar="TYPE", default="", help="media type of the whole"),
            *SENT,
            option("reference", metavar="NAME[:TAG]", help="where to"),
            option("files", nargs="+", **FILES),
        ),
        about="Prints the digest the registry has now. ORAS and others read and write the same.",
        examples=(("trivet artifact push localhost:5000/report:1 report.json:application/json", ""),),
    ),
    "attach": Command(
        attach,
        (
            option("--artifact-type", metavar="TYPE", required=True, help="media type of the whole"),
            *SENT,
            option("reference", metavar="NAME", help="what it is about, in its registry", complete=IMAGE),
            option("files", nargs="*", **FILES),
        ),
        about="The artifact refers to what NAME means in its registry (OCI 1.1 referrers); the registry may be any.",
        examples=(("trivet artifact attach --artifact-type example/report localhost:5000/web:1 report.json", ""),),
    ),
    "pull": Command(
        pull,
        (
            option("-o", "--output", metavar="DIR", default=".", help="where to (default: here)", complete=DIRECTORY),
            option("reference", metavar="NAME", help="NAME[:TAG] or NAME@DIGEST"),
        ),
        examples=(("trivet artifact pull -o reports localhost:5000/report:1", ""),),
    ),
    "referrers": Command(
        referrers,
        (
            option("--artifact-type", metavar="TYPE", default="", help="only those of this type"),
            *FORMAT,
            option("reference", metavar="NAME", help="an image, by its name in a registry", complete=IMAGE),
        ),
        about="The registry is asked; what is kept here is in `image inspect`.",
        examples=(("trivet image referrers localhost:5000/web:1", ""),),
    ),
}
