"""`capacity plan`: what would come of further instances; `capacity history`: what was, and what was said of it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from trivet.cli import capacity_picture, value
from trivet.cli.argument import FILE
from trivet.cli.command import Command, Misuse, option
from trivet.cli.context import Context
from trivet.cli.output import JSON, Column, binary_size, print_table, write_json
from trivet.client.schema_capacity import CapacityPlan, PlanRequest, PlanStep, Reliability


def plan(context: Context, args: Namespace) -> int:
    """Ask, and show one row for each; the exit code is 1 if one would be refused."""
    wish = PlanRequest(
        memory=args.memory,
        memory_reservation=args.memory_reservation,
        cpus=args.cpus,
        cpu_shares=args.cpu_shares,
        count=args.count,
    )
    if not (wish.memory or wish.memory_reservation or wish.cpus):
        raise Misuse("nothing is promised to such an instance", hint="--memory 8g --memory-reservation 2g --cpus 4")
    found = context.client.capacity.plan(wish)
    if args.json:
        write_json(found)
    else:
        print_table(found.steps, STEPS)
        print(f"\n{_fits(found)}; each is taken to use {binary_size(found.expected)}")
    return int(any(step.word == "refuse" for step in found.steps))


def _fits(found: CapacityPlan) -> str:
    if found.endless:
        return f"{found.fits} such instances would be let in, and perhaps more: nothing bounds what is promised"
    return f"{found.fits or 'no'} such instance{'s' if found.fits != 1 else ''} would be let in"


def history(context: Context, args: Namespace) -> int:
    """Show the score of what was said, and draw the last hour."""
    found = context.client.capacity.history()
    if args.svg:
        Path(args.svg).write_text(capacity_picture.draw(found.moments))
    if args.json:
        write_json(found)
        return 0
    print(f"{found.judged} statements about the next 5 minutes could be judged", end="")
    print(f"; Brier score {found.brier:.4f} (0 is perfect, 0.25 is guessing)\n" if found.judged else "")
    if found.table:
        print_table(found.table, BINS)
    return 0


STEPS: list[Column[PlanStep]] = [
    Column("NUMBER", lambda row: str(row.number)),
    Column("VERDICT", lambda row: row.word),
    Column("PROMISED", lambda row: binary_size(row.promised)),
    Column("KEPT", lambda row: binary_size(row.kept)),
    Column("CPUS", lambda row: f"{row.processors:g}"),
    Column("SHORTAGE", lambda row: f"{row.shortage:.1%}"),
    Column("WHY", lambda row: row.why),
]
BINS: list[Column[Reliability]] = [
    Column("STATEMENTS", lambda row: str(row.count)),
    Column("SAID", lambda row: f"{row.stated:.1%}"),
    Column("CAME TRUE", lambda row: f"{row.observed:.1%}"),
]

COMMANDS = {
    "plan": Command(
        plan,
        (
            option("-m", "--memory", metavar="SIZE", type=value.size, default=0, help="its maximum"),
            option("--memory-reservation", metavar="SIZE", type=value.size, default=0, help="its minimum"),
            option("--cpus", metavar="N", type=value.cores, default=0.0, help="its processors"),
            option("--cpu-shares", metavar="N", type=value.natural, default=0, help="its weight"),
            option("-n", "--count", metavar="N", type=value.natural, default=1, help="how many of them (1)"),
            *JSON,
        ),
        about="Nothing is started. The exit code is 1 if one of them would be refused.",
        examples=(("trivet capacity plan -m 8g --memory-reservation 2g --cpus 4 -n 3", ""),),
    ),
    "history": Command(
        history,
        (
            option(
                "--svg", metavar="FILE", default="", help="draw what was promised, used and forecast", complete=FILE
            ),
            *JSON,
        ),
        about="A statement is the probability of a shortage within 5 minutes, made every 5 seconds; it came true if "
        "memory was short at any time in them.",
        examples=(("trivet capacity history --svg hour.svg", ""),),
    ),
}
