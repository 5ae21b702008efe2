"""Instances: listing them, and what is done to several at once."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable

from trivet.base.error import NotFound, TrivetError
from trivet.cli import value
from trivet.cli.argument import FILTER, REF, REFS
from trivet.cli.command import Command, flag, option
from trivet.cli.context import Context
from trivet.cli.output import (
    FORMAT,
    JSON,
    QUIET,
    Column,
    abbreviated,
    age,
    done,
    human_size,
    parse_time,
    print_table,
    short,
    show,
    span,
    write_array,
    write_json,
)
from trivet.cli.patience import patience
from trivet.cli.prune import prune_command
from trivet.client.schema import Instance, TopRow
from trivet.client.schema_network import Port


def each(context: Context, args: Namespace, refs: list[str], action: Callable[[str], None], *, say: bool = True) -> int:
    """Do the same to several objects: `say` which is done, go on after a failure, fail in the end if any did."""
    failed = False
    for ref in refs:
        try:
            with patience(f"{context.verb} {ref}"):
                action(ref)
        except TrivetError as error:
            failed = True
            context.complain(error)
        else:
            if say:
                done(args, ref)
    return 1 if failed else 0


def ps(context: Context, args: Namespace) -> int:
    """List instances."""
    listed = args.all or args.latest or args.last > 0
    rows = context.client.instances.list(all=listed, wanted=value.collect(args.filter), size=args.size)
    rows.sort(key=lambda row: row.created, reverse=True)
    count = 1 if args.latest else args.last
    rows = rows[:count] if count > 0 else rows
    if args.quiet:
        for row in rows:
            print(short(row.id, args))
        return 0
    show(rows, _columns(args), args, lambda row: row.name)
    return 0


def _columns(args: Namespace) -> list[Column[Instance]]:
    columns: list[Column[Instance]] = [
        Column("ID", lambda row: short(row.id, args)),
        Column("NAME", lambda row: row.name),
        Column("IMAGE", lambda row: row.image),
        Column("LEVEL", level),
        Column("COMMAND", lambda row: abbreviated(" ".join(row.command), 20, args)),
        Column("CREATED", lambda row: age(row.created)),
        Column("STATUS", status),
        Column("PORTS", lambda row: ", ".join(port_text(port) for port in row.ports)),
    ]
    return [*columns, Column("SIZE", _size)] if args.size else columns


def _size(row: Instance) -> str:
    limit = row.request.storage_size
    return f"{human_size(row.size)} of {human_size(limit)}" if limit else human_size(row.size)


def level(row: Instance) -> str:
    """Name the level, and say so when a machine is only emulated, and whether it was forked or booted."""
    words = ["emulated"] if row.acceleration == "emulation" else []
    words += row.origin.split()[:1]
    return f"{row.isolation} ({', '.join(words)})" if words else row.isolation


def status(row: Instance, now: float | None = None) -> str:
    """Write the status with its age and exit code: `running 3 minutes`, `exited (1) 2 hours ago`."""
    now = now or time.time()
    if row.status in ("running", "paused", "restarting"):
        started = parse_time(row.started)
        health = f" ({row.health.status})" if row.health and row.status == "running" else ""
        return f"{row.status} {span(now - started)}{health}" if started else row.status
    if row.status in ("exited", "dead"):
        reason = "out of memory" if row.out_of_memory else str(row.exit_code)
        return f"{row.status} ({reason}) {age(row.finished, now)}"
    return row.status


def port_text(port: Port) -> str:
    """Write a published port: `127.0.0.1:8080->80/tcp`."""
    address = f"[{port.host_address}]" if ":" in port.host_address else port.host_address or "0.0.0.0"
    return f"{address}:{port.host_port}->{port.container_port}/{port.protocol}"


def stop(context: Context, args: Namespace) -> int:
    """Ask programs to end, kill them after the grace."""
    instances = context.client.instances
    return each(context, args, args.instances, lambda ref: instances.stop(ref, grace=args.time, signal=args.signal))


def restart(context: Context, args: Namespace) -> int:
    """Stop and start."""
    return each(context, args, args.instances, lambda ref: context.client.instances.restart(ref, grace=args.time))


def kill(context: Context, args: Namespace) -> int:
    """Send a signal."""
    return each(context, args, args.instances, lambda ref: context.client.instances.kill(ref, signal=args.signal))


def pause(context: Context, args: Namespace) -> int:
    """Freeze instances."""
    return each(context, args, args.instances, context.client.instances.pause)


def unpause(context: Context, args: Namespace) -> int:
    """Thaw instances."""
    return each(context, args, args.instances, context.client.instances.resume)


def remove(context: Context, args: Namespace) -> int:
    """Remove instances."""

    def action(ref: str) -> None:
        try:
            context.client.instances.remove(ref, force=args.force, volumes=args.volumes)
        except NotFound:
            if not args.force:
                raise

    return each(context, args, args.instances, action)


def rename(context: Context, args: Namespace) -> int:
    """Give another name."""
    context.client.instances.rename(args.instance, args.name)
    return 0


def wait(context: Context, args: Namespace) -> int:
    """Wait for ends, print exit codes."""
    for ref in args.instances:
        ended = context.client.instances.wait(ref, condition=args.condition)
        if args.json:
            write_json({"name": ref, "code": ended.code, "signal": ended.signal, "out_of_memory": ended.out_of_memory})
        else:
            print(ended.code, flush=True)
    return 0


def inspect(context: Context, args: Namespace) -> int:
    """Show instances as a JSON array."""
    write_array([context.client.instances.get(ref, size=args.size) for ref in args.instances])
    return 0


def port(context: Context, args: Namespace) -> int:
    """List published ports, or those of one port inside."""
    ports = context.client.instances.get(args.instance).ports
    if args.port:
        number, _, protocol = args.port.partition("/")
        wanted = (number, protocol or "tcp")
        ports = [item for item in ports if (str(item.container_port), item.protocol) == wanted]
        if not ports:
            raise NotFound(f"instance {args.instance} does not publish port {args.port}")
    for item in ports:
        if args.json:
            write_json(item)
        elif args.port:
            print(port_text(item).partition("->")[0])
        else:
            print(f"{item.container_port}/{item.protocol} -> {port_text(item).partition('->')[0]}")
    return 0


def top(context: Context, args: Namespace) -> int:
    """List the processes inside."""
    rows = context.client.instances.top(args.instance)
    if args.json:
        for row in rows:
            write_json(row)
        return 0
    columns: list[Column[TopRow]] = [
        Column("PID", lambda row: str(row.pid)),
        Column("PPID", lambda row: str(row.ppid)),
        Column("USER", lambda row: row.user),
        Column("CPU", lambda row: f"{row.cpu:.1f} %"),
        Column("STARTED", lambda row: age(row.started)),
        Column("COMMAND", lambda row: row.command),
    ]
    print_table(rows, columns)
    return 0


GRACE = option(
    "-t",
    "--time",
    "--timeout",
    metavar="TIME",
    type=value.seconds,
    help="grace before it is killed (default: the instance's own)",
)

COMMANDS = {
    "prune": prune_command(("instances",), "trivet instance prune"),
    "ls": Command(
        ps,
        (
            flag("-a", "--all", help="also those that don't run"),
            flag("-l", "--latest", help="only the newest"),
            option("-n", "--last", metavar="N", type=value.natural, default=0, help="only the N newest"),
            flag("-s", "--size", help="add the size of what each has written"),
            FILTER,
            *QUIET,
            *FORMAT,
        ),
        examples=(
            ("trivet ps", ""),
            ("trivet ps -a --filter status=exited", ""),
            ("trivet ps --json", "one object per line, for jq"),
        ),
    ),
    "stop": Command(
        stop,
        (GRACE, option("-s", "--signal", metavar="SIGNAL", default="", help="signal to ask with"), *JSON, REFS),
        examples=(("trivet stop -t 30 db", ""),),
    ),
    "restart": Command(restart, (GRACE, *JSON, REFS), examples=(("trivet restart web", ""),)),
    "kill": Command(
        kill,
        (
            option("-s", "--signal", metavar="SIGNAL", default="KILL", help="name or number (default: KILL)"),
            *JSON,
            REFS,
        ),
        examples=(("trivet kill -s HUP web", ""),),
    ),
    "pause": Command(pause, (*JSON, REFS), examples=(("trivet pause web", ""),)),
    "unpause": Command(unpause, (*JSON, REFS), examples=(("trivet unpause web", ""),)),
    "rm": Command(
        remove,
        (
            flag("-f", "--force", help="kill it first if it runs; none of that name is fine"),
            flag("-v", "--volumes", help="remove its anonymous volumes too"),
            *JSON,
            REFS,
        ),
        examples=(("trivet rm -f web", ""),),
    ),
    "rename": Command(
        rename,
        (REF, option("name", metavar="NAME", help="the new name")),
        examples=(("trivet rename web old-web", ""),),
    ),
    "wait": Command(
        wait,
        (
            option(
                "--condition",
                choices=("exited", "removed"),
                default="exited",
                help="what to wait for (default: exited)",
            ),
            *JSON,
            REFS,
        ),
        examples=(("trivet wait job", "prints the exit code"),),
    ),
    "inspect": Command(
        inspect,
        (flag("-s", "--size", help="add the size of what it has written"), REFS),
        examples=(("trivet instance inspect web", ""),),
    ),
    "port": Command(
        port,
        (*JSON, REF, option("port", metavar="PORT[/udp]", nargs="?", help="only this port inside")),
        examples=(("trivet port web 80", "0.0.0.0:8080"),),
    ),
    "top": Command(top, (*JSON, REF), examples=(("trivet top web", ""),)),
}
