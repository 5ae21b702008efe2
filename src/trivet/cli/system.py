"""The engine itself: info, disk use, check, events, version; and `inspect` of anything."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from trivet.base.error import NotFound, TrivetError
from trivet.base.version import VERSION
from trivet.cli import value
from trivet.cli.argument import FILTER, INSTANCE
from trivet.cli.command import Command, flag, option
from trivet.cli.context import Context
from trivet.cli.control import visible
from trivet.cli.output import JSON, Column, binary_size, human_size, print_table, short, write_array, write_json
from trivet.cli.patience import patience
from trivet.cli.prune import LAYER_BLOBS, prune_command
from trivet.client.schema import Event
from trivet.client.schema_host import Finding, Info, LevelInfo, Usage


def info(context: Context, args: Namespace) -> int:
    """Describe engine, host and levels."""
    found = context.client.system.info()
    if args.json:
        write_json(found)
        return 0
    for title, text in _facts(found):
        print(f"{title + ':':<14} {visible(text)}")
    print()
    print_table(found.levels, _level_columns())
    for level in found.levels:
        if level.hint:
            print(f"hint: {level.level}: {level.hint}")
    for warning in found.warnings:
        context.warn(warning)
    return 0


def _facts(found: Info) -> list[tuple[str, str]]:
    counts = ", ".join(f"{count} {status}" for status, count in found.instances.items() if count) or "none"
    return [
        ("engine", f"trivet {found.version}, pid {found.pid}"),
        ("root", found.root),
        ("run directory", found.run_directory),
        ("snapshotter", found.snapshotter),
        ("instances", counts),
        ("images", str(found.images)),
        *((key, binary_size(fact) if key == "memory" else str(fact)) for key, fact in found.host.items()),
    ]


def _level_columns() -> list[Column[LevelInfo]]:
    return [
        Column("LEVEL", lambda row: row.level),
        Column("WORKS", lambda row: "yes" if row.available else "no"),
        Column("RUNS ON", lambda row: row.acceleration),
        Column("OF ITS OWN", lambda row: ", ".join(row.unshared) or "nothing"),
        Column("MISSING", lambda row: ", ".join(row.missing) or "-"),
    ]


def usage(context: Context, args: Namespace) -> int:
    """Tell what takes how much space."""
    with patience("measuring"):
        rows = context.client.system.usage()
    if args.json:
        for row in rows:
            write_json(row)
        return 0
    columns: list[Column[Usage]] = [
        Column("KIND", lambda row: row.kind),
        Column("TOTAL", lambda row: str(row.total)),
        Column("ACTIVE", lambda row: str(row.active)),
        Column("SIZE", lambda row: human_size(row.size)),
        Column("RECLAIMABLE", lambda row: human_size(row.reclaimable)),
    ]
    print_table(rows, columns)
    return 0


def check(context: Context, args: Namespace) -> int:
    """Verify store and records; fails while something is wrong."""
    with patience("checking"):
        findings = context.client.system.check(repair=args.repair)
    unrepaired = [finding for finding in findings if not finding.repaired]
    if args.json:
        for finding in findings:
            write_json(finding)
    elif not findings:
        print("nothing wrong")
    else:
        columns: list[Column[Finding]] = [
            Column("OBJECT", lambda row: row.object),
            Column("PROBLEM", lambda row: row.problem),
            Column("REPAIRED" if args.repair else "REPAIR", lambda row: row.repair),
            Column("STATE", lambda row: "repaired" if row.repaired else "open"),
        ]
        print_table(findings, columns)
        if unrepaired and not args.repair:
            context.note("hint: mend it with `trivet system check --repair`")
    return 1 if unrepaired else 0


def events(context: Context, args: Namespace) -> int:
    """Follow what happens."""
    follow = not args.until
    found = context.client.system.events(
        since=args.since or "", until=args.until or "", follow=follow, wanted=value.collect(args.filter)
    )
    for event in found:
        if args.json:
            write_json(event)
        else:
            print(line_of(event), flush=True)
    return 0


def line_of(event: Event) -> str:
    """Write an event as a line."""
    details = ", ".join(f"{key}={text}" for key, text in sorted(event.attributes.items()))
    name = f"{event.name} " if event.name and event.name != event.id else ""
    line = f"{event.time} {event.kind} {event.action} {name}{short(event.id)}"
    return visible(line + (f" ({details})" if details else ""))


def version(context: Context, args: Namespace) -> int:
    """Tell the versions of command and engine."""
    try:
        engine = context.client.system.ping()
    except TrivetError as error:
        engine = ""
        context.complain(error)
    if args.json:
        write_json({"command": VERSION, "engine": engine})
    else:
        print(f"command  {VERSION}\nengine   {engine or 'does not answer'}")
    return 0 if engine else 1


def inspect(context: Context, args: Namespace) -> int:
    """Show objects of any kind as a JSON array."""
    write_array([_find(context, ref, args.type) for ref in args.refs])
    return 0


def _find(context: Context, ref: str, kind: str) -> Any:
    client = context.client
    ways: dict[str, Callable[[str], Any]] = {
        "instance": client.instances.get,
        "image": client.images.get,
        "volume": client.volumes.get,
        "network": client.networks.get,
    }
    for get in [ways[kind]] if kind else ways.values():
        try:
            return get(ref)
        except NotFound:
            continue
    raise NotFound(f"no such {kind or 'instance, image, volume or network'}: {ref}")


TIMES = (
    option("--since", metavar="TIME", type=value.moment, help="from a time, or a duration ago: 10m"),
    option("--until", metavar="TIME", type=value.moment, help="up to a time; then it ends"),
)

COMMANDS = {
    "info": Command(info, JSON, examples=(("trivet info", ""),)),
    "df": Command(usage, JSON, examples=(("trivet system df", ""),)),
    "check": Command(
        check,
        (flag("--repair", help="mend what can be mended"), *JSON),
        about="The exit code is 1 while something is wrong.",
        examples=(("trivet system check", ""),),
    ),
    "prune": prune_command(
        ("instances", "networks", "build", "templates", "images"),
        "trivet system prune",
        flag("-a", "--all", help="also named images no instance uses"),
        flag("--volumes", help="also anonymous volumes"),
        LAYER_BLOBS,
    ),
    "events": Command(
        events,
        (*TIMES, FILTER, *JSON),
        examples=(("trivet events --since 10m --filter kind=instance", ""),),
    ),
    "version": Command(version, JSON, examples=(("trivet version", ""),)),
    "inspect": Command(
        inspect,
        (
            option(
                "--type", choices=("instance", "image", "volume", "network"), default="", help="look only among these"
            ),
            option(
                "refs",
                metavar="NAME",
                nargs="+",
                help="name or id of an instance, image, volume or network",
                complete=INSTANCE,
            ),
        ),
        examples=(("trivet inspect web | jq .[0].networks", ""),),
    ),
}
