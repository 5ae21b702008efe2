"""Secrets."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from trivet.base.error import NotFound
from trivet.cli import value
from trivet.cli.argument import FILE, repeated
from trivet.cli.command import Command, flag, option
from trivet.cli.context import Context
from trivet.cli.instance import each
from trivet.cli.output import FORMAT, JSON, Column, age, show, write_array, write_json
from trivet.client.schema_secret import Secret


def create(context: Context, args: Namespace) -> int:
    """Keep a secret."""
    if args.file == "-":
        data = sys.stdin.buffer.read()
    else:
        try:
            data = Path(args.file).read_bytes()
        except OSError as error:
            raise NotFound(f"cannot read {args.file}: {(error.strerror or '').lower()}") from error
    made = context.client.secrets.create(args.name, data, dict(args.label))
    if args.json:
        write_json(made)
    else:
        print(made.id)
    return 0


def list_(context: Context, args: Namespace) -> int:
    """List secrets."""
    if args.quiet:
        args.format = "name"
    columns: list[Column[Secret]] = [
        Column("ID", lambda row: row.id[:12]),
        Column("NAME", lambda row: row.name),
        Column("CREATED", lambda row: age(row.created)),
        Column("USED BY", lambda row: ", ".join(row.users)),
    ]
    show(context.client.secrets.list(), columns, args, lambda row: row.name)
    return 0


def inspect(context: Context, args: Namespace) -> int:
    """Describe secrets as a JSON array."""
    write_array([context.client.secrets.get(ref) for ref in args.secrets])
    return 0


def remove(context: Context, args: Namespace) -> int:
    """Forget secrets."""
    return each(context, args, args.secrets, context.client.secrets.remove)


REFS = option("secrets", metavar="SECRET", nargs="+", help="name or id")

COMMANDS = {
    "create": Command(
        create,
        (
            repeated("--label", metavar="KEY[=VALUE]", type=value.label, help="attach a label"),
            *JSON,
            option("name", metavar="NAME", help="its name"),
            option("file", metavar="FILE", help="what it holds, - for standard input", complete=FILE),
        ),
        about="The engine keeps it in a file that only root reads, and shows it to nobody but the instances it is "
        "given to.",
        examples=(
            ("pwgen 32 1 | trivet secret create db-password -", ""),
            ("trivet run --secret db-password,mode=0400 postgres", "as /run/secrets/db-password"),
        ),
    ),
    "ls": Command(
        list_, (flag("-q", "--quiet", help="only show names"), *FORMAT), examples=(("trivet secret ls", ""),)
    ),
    "inspect": Command(inspect, (REFS,), examples=(("trivet secret inspect db-password", ""),)),
    "rm": Command(remove, (*JSON, REFS), examples=(("trivet secret rm db-password", ""),)),
}
