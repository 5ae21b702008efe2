"""`capacity`: what is promised, used and to be expected, and why memory was taken from whom."""

from __future__ import annotations

from argparse import Namespace

from trivet.cli import value
from trivet.cli.argument import INSTANCE
from trivet.cli.command import Command, flag, option
from trivet.cli.context import Context
from trivet.cli.control import visible
from trivet.cli.output import JSON, Column, binary_size, print_table, write_json
from trivet.client.schema_capacity import Capacity, Decision, Share


def capacity(context: Context, args: Namespace) -> int:
    """Show the sums and every instance's share, or with --explain what was decided."""
    if args.explain:
        return _explain(context, args)
    found = context.client.capacity.get()
    if args.instance:
        key = context.client.instances.get(args.instance).id
        found_shares = [share for share in found.shares if share.id == key]
    else:
        found_shares = found.shares
    if args.json:
        for row in found_shares if args.instance else [found]:
            write_json(row)
        return 0
    if not args.instance:
        for title, text in _sums(found):
            print(f"{title + ':':<12} {text}")
        print()
    print_table(sorted(found_shares, key=lambda share: share.name), COLUMNS)
    return 0


def _sums(found: Capacity) -> list[tuple[str, str]]:
    memory, cores = found.memory - found.reserve, found.processors
    return [
        ("memory", f"{binary_size(memory)} for instances, {binary_size(found.room)} of it within reach now"),
        (
            "promised",
            f"{binary_size(found.promised)} ({_ratio(found.promised, memory)}), kept {binary_size(found.kept)}",
        ),
        ("used", f"{binary_size(found.used)} ({_ratio(found.used, memory)})"),
        ("forecast", f"{binary_size(found.forecast)} within {found.horizon:.0f} s"),
        ("shortage", f"{found.shortage:.1%} probable within {found.horizon:.0f} s"),
        (
            "processors",
            f"{found.promised_processors:g} promised of {cores:g} ({_ratio(found.promised_processors, cores)})",
        ),
        ("stolen", f"{found.stolen:.1f} s waited for processors"),
        ("stalled", f"{found.stalled:.1%} of the last 10 s something waited for memory"),
        *([("merged", f"{binary_size(found.merged)} saved by KSM on this host")] if found.merged else []),
    ]


def _ratio(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def _explain(context: Context, args: Namespace) -> int:
    rows = context.client.capacity.decisions(args.instance, args.last)
    if args.json:
        for row in rows:
            write_json(row)
    else:
        for row in rows:
            print(visible(_sentence(row)))
    return 0


def _sentence(row: Decision) -> str:
    change = f" {binary_size(row.before)} -> {binary_size(row.after)}" if row.word in ("take", "give") else ""
    return f"{row.time} {row.word} {row.name or '-'}{change}: {row.why}"


def _bytes(count: int) -> str:
    return binary_size(count) if count else "-"


COLUMNS: list[Column[Share]] = [
    Column("NAME", lambda row: row.name),
    Column("LEVEL", lambda row: row.isolation),
    Column("MINIMUM", lambda row: _bytes(row.minimum)),
    Column("MAXIMUM", lambda row: _bytes(row.maximum)),
    Column("WEIGHT", lambda row: str(row.weight)),
    Column("CPUS", lambda row: f"{row.processors:g}" if row.processors else "-"),
    Column("MAY HAVE", lambda row: _bytes(row.allotted) + ("" if row.elastic or not row.allotted else " (fixed)")),
    Column("USED", lambda row: binary_size(row.used) + (" waits" if row.starved else "")),
    Column("FORECAST", lambda row: binary_size(row.forecast)),
    Column("STOLEN", lambda row: f"{row.stolen:.1f} s"),
]

COMMANDS = {
    "show": Command(
        capacity,
        (
            flag("--explain", help="tell what was taken from whom, given, refused, and why"),
            option("-n", "--last", metavar="N", type=value.natural, default=100, help="how many decisions (100)"),
            *JSON,
            option("instance", metavar="INSTANCE", nargs="?", default="", help="only this one", complete=INSTANCE),
        ),
        about=(
            "Of an instance with a minimum (--memory-reservation) below its maximum (--memory), memory it doesn't use "
            "is taken when others need it; --cpu-shares is its weight. Change them with `trivet update`."
        ),
        examples=(("trivet capacity", ""), ("trivet capacity --explain db", "why it has what it has")),
    ),
}
