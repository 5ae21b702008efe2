"""What an image is made of: its packages."""

from __future__ import annotations

from argparse import Namespace

import msgspec

from trivet.cli.argument import IMAGE
from trivet.cli.command import Command, option
from trivet.cli.context import Context
from trivet.cli.output import FORMAT, Column, show, write_json


class _Listed(msgspec.Struct):
    name: str
    version: str = msgspec.field(name="versionInfo", default="")
    references: list[dict[str, str]] = msgspec.field(name="externalRefs", default_factory=list[dict[str, str]])


def bill(context: Context, args: Namespace) -> int:
    """List the packages in an image: as its build attached them, or as they are found now."""
    found = context.client.images.bill(args.image)
    if args.format == "json":
        write_json(found)
        return 0
    rows = [each for each in msgspec.convert(found.get("packages"), list[_Listed]) if each.references]
    columns: list[Column[_Listed]] = [
        Column("PACKAGE", lambda row: row.name),
        Column("VERSION", lambda row: row.version),
        Column("URL", lambda row: row.references[0].get("referenceLocator", "")),
    ]
    show(rows, columns, args, lambda row: row.name)
    return 0


COMMANDS = {
    "sbom": Command(
        bill,
        (
            *FORMAT,
            option("image", metavar="IMAGE", help="name, id or beginning of an id", complete=IMAGE),
        ),
        examples=(("trivet sbom web:1", ""), ("trivet sbom --json web:1 >web.spdx.json", "SPDX 2.3")),
    ),
}
