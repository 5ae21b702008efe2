"""Policies: who may talk to whom, by labels; documents as Kubernetes has them (NetworkPolicy)."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from trivet.base.error import NotFound
from trivet.cli.argument import FILE
from trivet.cli.command import Command, flag, option
from trivet.cli.compose import document
from trivet.cli.context import Context
from trivet.cli.output import FORMAT, JSON, Column, show, write_array, write_json
from trivet.cli.policy_document import read
from trivet.client.schema_policy import Flow, PolicyOutcome, PolicyRequest

DRY = flag("--dry-run", help="only tell which pairs it would change")


def apply(context: Context, args: Namespace) -> int:
    """Put a policy in force, in place of one of its name."""
    name = "standard input" if args.file == "-" else args.file
    try:
        data = sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no file {args.file}") from None
    request = read(document.parse(data, name), name)
    return _tell(context.client.networks.apply_policy(request, dry_run=args.dry_run), args, "applied")


def remove(context: Context, args: Namespace) -> int:
    """Take policies out of force."""
    for name in args.policies:
        _tell(context.client.networks.remove_policy(name, dry_run=args.dry_run), args, "removed")
    return 0


def _tell(outcome: PolicyOutcome, args: Namespace, done: str) -> int:
    if args.json:
        write_json(outcome)
        return 0
    print(f"policy {outcome.name} {'would be ' if args.dry_run else ''}{done}")
    for change in outcome.changes:
        print(f"  {change.source} → {change.target}: {change.before} → {change.after}")
    if not outcome.changes:
        print("  no pair of instances is concerned")
    return 0


def list_(context: Context, args: Namespace) -> int:
    """List policies."""
    columns: list[Column[PolicyRequest]] = [
        Column("NAME", lambda row: row.name),
        Column("ABOUT", lambda row: ",".join(f"{key}={word}" for key, word in sorted(row.labels.items())) or "all"),
        Column("INGRESS", lambda row: _count(row.ingress)),
        Column("EGRESS", lambda row: _count(row.egress)),
    ]
    show(context.client.networks.policies(), columns, args, lambda row: row.name)
    return 0


def _count(rules: list[object] | Iterable[object] | None) -> str:
    return "-" if rules is None else f"{len(list(rules))} allowed" if list(rules) else "nothing"


def inspect(context: Context, args: Namespace) -> int:
    """Show policies as a JSON array."""
    write_array([context.client.networks.policy(name) for name in args.policies])
    return 0


def log(context: Context, args: Namespace) -> int:
    """Show what policies decided about beginning connections."""
    for flow in context.client.networks.flows(follow=args.follow):
        if args.json:
            write_json(flow)
        else:
            print(_line(flow), flush=True)
    return 0


def _line(flow: Flow) -> str:
    ends = [name or address for name, address in ((flow.source_name, flow.source), (flow.target_name, flow.target))]
    port = f":{flow.port}" if flow.port else ""
    by = f" by {flow.policy}" if flow.policy else ""
    return f"{flow.time} {flow.verdict:5} {flow.direction:3} {ends[0]} → {ends[1]}{port}/{flow.protocol}{by}"


NAMES = option("policies", metavar="POLICY", nargs="+", help="a policy's name")

COMMANDS = {
    "apply": Command(
        apply,
        (
            DRY,
            *JSON,
            option("file", metavar="FILE", help="YAML or JSON, - is standard input", complete=FILE),
        ),
        about="The document is a Kubernetes NetworkPolicy; podSelector selects instances by their labels.",
        examples=(("trivet policy apply --dry-run db.yaml", "tells which pairs change"),),
    ),
    "ls": Command(list_, FORMAT, examples=(("trivet policy ls", ""),)),
    "inspect": Command(inspect, (NAMES,), examples=(("trivet policy inspect db", ""),)),
    "rm": Command(remove, (DRY, *JSON, NAMES), examples=(("trivet policy rm db", ""),)),
    "log": Command(
        log,
        (flag("-f", "--follow", help="go on as it happens"), *JSON),
        about="What is denied is logged always, what is allowed where the policy's annotation trivet.log is true.",
        examples=(("trivet policy log -f", ""),),
    ),
}
