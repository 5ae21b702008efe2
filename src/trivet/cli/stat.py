"""`stats`: a live table of what instances use."""

from __future__ import annotations

import sys
import time
from argparse import Namespace

from trivet.base.error import NotFound
from trivet.cli import terminal
from trivet.cli.argument import INSTANCE
from trivet.cli.command import Command, flag, option
from trivet.cli.context import Context
from trivet.cli.output import FORMAT, Column, binary_size, human_size, short, table, write_json
from trivet.client.schema import StatsSample

INTERVAL = 1.0
CLEAR = "\x1b[H\x1b[J"


def stats(context: Context, args: Namespace) -> int:
    """Measure once, or again and again until interrupted."""
    live = terminal.is_terminal(1) and not args.no_stream and args.format == "table"
    while True:
        samples = _measure(context, args.instances)
        if args.format == "json":
            for sample in samples:
                write_json(sample)
        elif args.format == "name":
            print("\n".join(sample.name for sample in samples))
        else:
            sys.stdout.write((CLEAR if live else "") + _fit(table(samples, _columns(args, samples)), live))
            sys.stdout.flush()
        if args.no_stream:
            return 0
        time.sleep(INTERVAL)


def _measure(context: Context, refs: list[str]) -> list[StatsSample]:
    if not refs:
        return context.client.system.stats()
    samples = [next(context.client.instances.stats(ref), None) for ref in refs]
    missing = [ref for ref, sample in zip(refs, samples, strict=True) if sample is None]
    if missing:
        raise NotFound(f"no statistics of instance {missing[0]}: it does not run")
    return [sample for sample in samples if sample is not None]


def _columns(args: Namespace, samples: list[StatsSample]) -> list[Column[StatsSample]]:
    return [
        Column("ID", lambda row: short(row.id, args)),
        Column("NAME", lambda row: row.name),
        Column("LEVEL", lambda row: row.isolation),
        Column("CPU", lambda row: f"{row.cpu_percent:.2f}%"),
        Column("MEMORY", _memory),
        Column("NET IN / OUT", lambda row: f"{human_size(row.received)} / {human_size(row.sent)}"),
        Column("READ / WRITTEN", lambda row: f"{human_size(row.read)} / {human_size(row.written)}"),
        Column("PIDS", lambda row: str(row.pids)),
        *(_INSIDE if any(sample.inside for sample in samples) else ()),
    ]


def _memory(row: StatsSample) -> str:
    used = binary_size(row.memory)
    if not row.memory_limit:
        return used
    return f"{used} of {binary_size(row.memory_limit)} ({100 * row.memory / row.memory_limit:.1f}%)"


def _memory_inside(row: StatsSample) -> str:
    if row.inside is None:
        return "-"
    return f"{binary_size(row.inside.memory - row.inside.available)} of {binary_size(row.inside.memory)}"


def _pressure(row: StatsSample) -> str:
    return ", ".join(f"{each.kind} {each.some:.0f}%" for each in row.inside.pressure) if row.inside else "-"


def _disk(row: StatsSample) -> str:
    found = [each for each in row.inside.systems if each.path == "/"] if row.inside else []
    return f"{binary_size(found[0].used)} of {binary_size(found[0].size)}" if found else "-"


_INSIDE: tuple[Column[StatsSample], ...] = (
    Column("INSIDE", _memory_inside),
    Column("WAITING FOR", _pressure),
    Column("ROOT", _disk),
)


def _fit(text: str, live: bool) -> str:
    """Cut a live table to the screen, so that it never scrolls."""
    if not live:
        return text
    rows, columns = terminal.size()
    if not rows or not columns:
        return text
    return "".join(line[: columns - 1] + "\n" for line in text.splitlines()[: rows - 1])


COMMANDS = {
    "stats": Command(
        stats,
        (
            flag("--no-stream", help="measure once"),
            flag("--no-trunc", help="don't shorten ids"),
            *FORMAT,
            option(
                "instances", metavar="INSTANCE", nargs="*", help="only these (default: all that run)", complete=INSTANCE
            ),
        ),
        about="CPU is the share of one core: 200% is two cores busy. Memory leaves out page cache that can be dropped.",
        examples=(("trivet stats", ""), ("trivet stats --no-stream --json web", "")),
    ),
}
