"""`build --call check|outline|targets`: what the engine says about a Dockerfile, as text or JSON."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Literal, cast

from trivet.cli.command import Misuse
from trivet.cli.control import visible
from trivet.cli.output import write_json

METHODS = ("build", "check", "outline", "targets")


Call = Literal["build", "check", "outline", "targets"]


def call_of(args: Namespace) -> Call:
    """Read --call and --check; `,format=json` is for `show_call`."""
    method, _, form = args.call.removeprefix("subrequests.").partition(",")
    if method not in METHODS or form not in ("", "format=json", "format=text"):
        raise Misuse(f"--call: {args.call!r} is not one of {', '.join(METHODS)}")
    return cast(Call, "check" if args.check else method)


def show_call(result: dict[str, Any], *, as_json: bool) -> int:
    """Print the answer; warnings make the exit status 1."""
    if as_json:
        write_json(result)
    elif "warnings" in result:
        _show_warnings(result["warnings"])
    elif "targets" in result:
        _show_table(("TARGET", "BASE", "DESCRIPTION"), [_target_row(row) for row in result["targets"]])
    else:
        _show_outline(result)
    return 1 if result.get("warnings") else 0


def _show_warnings(warnings: list[dict[str, Any]]) -> None:
    count = len(warnings)
    found = f"{count} warning{'s' if count > 1 else ''} found" if count else "no warnings found"
    sys.stdout.write(f"Check complete, {found}.\n")
    for each in warnings:
        rule = "-" * 20
        lines = [visible(line) for line in each["excerpt"].split("\n")]
        head = f"\nWARNING: {each['rule']}\n{visible(each['text'])}\n{visible(each['file'])}:{each['line']}\n"
        sys.stdout.write(head + "\n".join([rule, *lines, rule]) + "\n")


def _target_row(row: dict[str, Any]) -> tuple[str, ...]:
    name = row["name"] or "-"
    return (f"{name} (default)" if row["default"] else name, row["base"], row["description"])


def _show_outline(outline: dict[str, Any]) -> None:
    if outline["name"]:
        sys.stdout.write(f"TARGET: {outline['name']}\n")
    if outline["description"]:
        sys.stdout.write(f"DESCRIPTION: {visible(outline['description'])}\n")
    _show_table(("BUILD ARG", "VALUE", "DESCRIPTION"), [tuple(row.values()) for row in outline["args"]])
    for title, key in (("SECRET", "secrets"), ("SSH", "ssh")):
        rows = [(str(row["name"]), "required" if row["required"] else "") for row in outline[key]]
        _show_table((title, "REQUIRED"), rows)


def _show_table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if not rows:
        return
    cells = [titles, *(tuple(visible(str(cell)) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    for row in cells:
        line = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")
    sys.stdout.write("\n")
