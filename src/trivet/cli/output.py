"""How results look: tables for people, one JSON object per line for programs."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from trivet.cli.command import option
from trivet.cli.control import visible

T = TypeVar("T")

SHORT_ID = 12
HEX = set("0123456789abcdef")
GAP = 3

FORMAT = (
    option(
        "--format", choices=("table", "json", "name"), default="table", help="how to show the list (default: table)"
    ),
    option("--json", action="store_const", const="json", dest="format", help="one JSON object per line"),
)
JSON = (option("--json", action="store_true", help="one JSON object per line"),)
QUIET = (
    option("-q", "--quiet", action="store_true", help="only show ids"),
    option("--no-trunc", action="store_true", help="don't shorten ids and commands"),
)


class Column(NamedTuple, Generic[T]):
    """A column of a table: its title, and the text of a row's cell."""

    title: str
    cell: Callable[[T], str]


def show(rows: Sequence[T], columns: Sequence[Column[T]], args: Namespace, name: Callable[[T], str]) -> None:
    """Print a list as the options ask: table, JSON lines, or names."""
    if args.format == "json":
        for row in rows:
            write_json(row)
    elif args.format == "name":
        for row in rows:
            print(name(row))
    else:
        print_table(rows, columns)


def print_table(rows: Iterable[T], columns: Sequence[Column[T]]) -> None:
    """Print rows under titles, cells aligned; control characters made visible."""
    sys.stdout.write(table(rows, columns))


def table(rows: Iterable[T], columns: Sequence[Column[T]]) -> str:
    """Lay rows out under titles."""
    cells = [[column.title for column in columns], *([visible(column.cell(row)) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    lines = ((" " * GAP).join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells)
    return "".join(line.rstrip() + "\n" for line in lines)


def write_json(value: Any) -> None:
    """Print one JSON object on a line of its own."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def write_array(values: Sequence[Any]) -> None:
    """Print a JSON array, indented, as `inspect` does."""
    print(msgspec.json.format(msgspec.json.encode(list(values)), indent=4).decode())


def done(args: Namespace, text: str, **fields: Any) -> None:
    """Say which object an action was done to."""
    if getattr(args, "json", False):
        write_json(fields or {"name": text})
    else:
        print(visible(text), flush=True)


def short(digest: str, args: Namespace | None = None) -> str:
    """Shorten an id or digest to what people type, unless `--no-trunc`. What is neither stays as it is."""
    algorithm, colon, digits = digest.removeprefix("sha256:").rpartition(":")
    if (args is not None and getattr(args, "no_trunc", False)) or not set(digits) <= HEX:
        return digest
    return f"{algorithm}{colon}{digits[:SHORT_ID]}"


def abbreviated(text: str, length: int, args: Namespace) -> str:
    """Cut a long text, unless `--no-trunc`."""
    return text if args.no_trunc or len(text) <= length else text[: length - 1] + "…"


def human_size(count: float) -> str:
    """Write bytes with three digits: 187 MB, 1.02 GB (powers of 1000); "-" when unknown."""
    if count < 0:
        return "-"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"


def binary_size(count: int) -> str:
    """Write bytes of memory: 24.5 MiB (powers of 1024)."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1000 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.4g} {unit}"


def parse_time(text: str) -> float | None:
    """Read RFC 3339 as Unix seconds; None for an empty or zero time."""
    if not text or text.startswith("0001"):
        return None
    from datetime import datetime  # only lists with ages need it

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def age(text: str, now: float | None = None) -> str:
    """Write how long ago something was: `3 minutes ago`."""
    moment = parse_time(text)
    return "-" if moment is None else f"{span((now or time.time()) - moment)} ago"


def span(seconds: float) -> str:
    """Write a duration in its largest sensible unit: `3 minutes`."""
    for unit, size, limit in (
        ("second", 1, 120),
        ("minute", 60, 7200),
        ("hour", 3600, 172800),
        ("day", 86400, 5184000),
    ):
        if seconds < limit:
            return _counted(max(int(seconds // size), 0), unit)
    months = int(seconds // 2629800)
    return _counted(months, "month") if months < 24 else _counted(months // 12, "year")


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"
