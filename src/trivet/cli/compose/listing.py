"""Lists: the instances, volumes and statistics of an application, and the applications themselves."""

from __future__ import annotations

from argparse import Namespace

from trivet.cli import stat
from trivet.cli.argument import FILTER, repeated
from trivet.cli.command import Command, flag, option
from trivet.cli.compose import plan
from trivet.cli.compose.store import PROJECT
from trivet.cli.context import Context
from trivet.cli.output import FORMAT, JSON, Column, print_table, show, write_json
from trivet.cli.value import collect
from trivet.client.schema import Instance
from trivet.client.schema_network import Port
from trivet.client.schema_volume import Volume


def ps(context: Context, args: Namespace) -> int:
    """List the instances."""
    from trivet.cli.compose.command import project_of

    project = project_of(context, args, services=False)
    status = [*args.status, *collect(args.filter).get("status", ())]
    rows = [
        one
        for one in plan.present(context.client, project.name)
        if (one.status in status if status else args.all or one.status not in ("exited", "dead", "created"))
        and (not args.services or one.labels.get(plan.SERVICE) in args.services)
    ]
    if args.names:
        for name in sorted({row.labels.get(plan.SERVICE, "") for row in rows}):
            print(name)
        return 0
    if args.quiet:
        for row in rows:
            print(row.id)
        return 0
    columns: list[Column[Instance]] = [
        Column("NAME", lambda row: row.name),
        Column("SERVICE", lambda row: row.labels.get(plan.SERVICE, "")),
        Column("IMAGE", lambda row: row.image),
        Column("LEVEL", lambda row: row.isolation),
        Column("STATUS", _status),
        Column("PORTS", lambda row: ", ".join(map(_port, row.ports))),
    ]
    show(rows, columns, args, lambda row: row.name)
    return 0


def _status(row: Instance) -> str:
    if row.status == "exited":
        return f"exited ({row.exit_code})"
    return f"{row.status} ({row.health.status})" if row.health else row.status


def _port(port: Port) -> str:
    address = f"[{port.host_address}]" if ":" in port.host_address else port.host_address or "0.0.0.0"
    return f"{address}:{port.host_port}->{port.container_port}/{port.protocol}"


def list_(context: Context, args: Namespace) -> int:
    """List the applications of the engine."""
    found: dict[str, list[Instance]] = {}
    for one in context.client.instances.list(all=True, wanted={"label": [PROJECT]}):
        found.setdefault(one.labels[PROJECT], []).append(one)
    rows = [
        (name, sum(1 for one in all if one.status == "running"), len(all), all[0].labels.get(plan.FILES, ""))
        for name, all in sorted(found.items())
    ]
    names = collect(args.filter).get("name", ())
    rows = [row for row in rows if (args.all or row[1]) and (not names or row[0] in names)]
    if args.quiet:
        for row in rows:
            print(row[0])
        return 0
    if args.json or args.format == "json":
        for row in rows:
            write_json(dict(zip(("name", "running", "instances", "files"), row, strict=True)))
        return 0
    print_table(
        rows,
        [
            Column("NAME", lambda row: row[0]),
            Column("RUNNING", lambda row: f"{row[1]}/{row[2]}"),
            Column("FILES", lambda row: row[3]),
        ],
    )
    return 0


def volumes(context: Context, args: Namespace) -> int:
    """List the volumes of an application."""
    from trivet.cli.compose.command import project_of

    project = project_of(context, args, services=False)
    rows = context.client.volumes.list(wanted={"label": [f"{PROJECT}={project.name}"]})
    if args.services:
        users = {one.name for one in plan.present(context.client, project.name) if _of(one, args.services)}
        rows = [row for row in rows if users & set(row.users)]
    if args.quiet:
        for row in rows:
            print(row.name)
        return 0
    columns: list[Column[Volume]] = [
        Column("NAME", lambda row: row.name),
        Column("DRIVER", lambda row: row.driver),
        Column("USED BY", lambda row: ", ".join(row.users)),
    ]
    show(rows, columns, args, lambda row: row.name)
    return 0


def _of(instance: Instance, services: list[str]) -> bool:
    return not services or instance.labels.get(plan.SERVICE) in services


def stats(context: Context, args: Namespace) -> int:
    """Show what services use, again and again."""
    from trivet.cli.compose.command import project_of

    there = plan.present(context.client, project_of(context, args, services=False).name)
    args.instances = [one.id for one in there if one.status == "running" and _of(one, args.services)]
    args.json = args.json or args.format == "json"
    return stat.stats(context, args) if args.instances else 0


_SERVICES = option("services", metavar="SERVICE", nargs="*", help="only these")
_AS_JSON = option("--format", choices=("table", "json"), default="table", help="how to show it (default: table)")
COMMANDS = {
    "ps": Command(
        ps,
        (
            flag("-a", "--all", help="those that don't run, too"),
            flag("-q", "--quiet", help="only ids"),
            option("--services", action="store_true", dest="names", help="only the names of the services"),
            repeated(
                "--status", metavar="STATUS", help="only those: running, paused, restarting, exited, created, dead"
            ),
            FILTER,
            flag("--orphans", help="those of services that are gone, too (they are shown anyway)"),
            flag("--no-trunc", help="nothing is shortened anyway"),
            *FORMAT,
            _SERVICES,
        ),
    ),
    "ls": Command(
        list_,
        (
            flag("-a", "--all", help="those of which nothing runs, too"),
            flag("-q", "--quiet", help="only names"),
            FILTER,
            _AS_JSON,
            *JSON,
        ),
    ),
    "volumes": Command(volumes, (flag("-q", "--quiet", help="only names"), *FORMAT, _SERVICES)),
    "stats": Command(
        stats,
        (
            flag("--no-stream", help="measure once"),
            flag("--no-trunc", help="don't shorten ids"),
            _AS_JSON,
            *JSON,
            _SERVICES,
        ),
        examples=(("trivet compose stats --no-stream", ""),),
    ),
}
