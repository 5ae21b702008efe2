"""Build a Dockerfile of twenty steps, trivet and docker beside one another: `python -m bench.build`.

Contestants take turns, each with a store of its own on a disk of its own; a turn is one build with `--no-cache` and a
few fully cached ones, by everybody's own command. The image that a build names is noted: it may not differ.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.account import Account
from bench.image import NAME, archive
from bench.pull import accounting, disk, docker, run, trivet, worst
from bench.table import draw

STEPS, CACHED, ROUNDS = 20, 3, 5


class Column(NamedTuple):
    """What builds of one kind took, in seconds by the clock and of processor time of command, daemon and steps."""

    clock: list[float]
    cpu: list[float]


class Row(NamedTuple):
    """What one contestant's builds took, and the images they gave."""

    fresh: Column
    cached: Column
    images: set[bytes]


def main(rounds: int = ROUNDS) -> None:
    """Measure and print a table."""
    contestants: dict[str, Callable[[Path], AbstractContextManager[list[str]]]] = {
        "trivet": lambda place: trivet(place, "overlay"),
    }
    if shutil.which("dockerd"):
        contestants["docker"] = docker
    rows = {name: Row(Column([], []), Column([], []), set()) for name in contestants}
    with ExitStack() as undo:
        place = Path(undo.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        context = place / "context"
        context.mkdir()
        steps = [f"RUN echo {number} > /tmp/{number}" for number in range(STEPS)]
        (context / "Dockerfile").write_text("\n".join([f"FROM {NAME}", *steps, ""]))
        image = archive()
        commands: dict[str, tuple[list[str], Account]] = {}
        for name, contestant in contestants.items():
            store = undo.enter_context(disk(place / name))
            account = undo.enter_context(accounting(f"build-{name}"))
            commands[name] = undo.enter_context(contestant(store)), account
            run(*commands[name][0], "load", "-q", "-i", image)
        print(f"Build: {STEPS} times RUN, all anew and all cached", flush=True)
        for number in range(rounds):
            order = list(contestants)
            for name in order[number % len(order) :] + order[: number % len(order)]:
                measure(*commands[name], context, rows[name])
                figures = f"{rows[name].fresh.clock[-1]:.3f} {rows[name].cached.clock[-1]:.3f}"
                print(f"{name}: {figures}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    print(report(rows))


def measure(command: Sequence[str], account: Account, context: Path, row: Row) -> None:
    """Build once anew and a few times from the cache."""
    account.enter()
    for flags, column in ((["--no-cache"], row.fresh), *[([], row.cached)] * CACHED):
        began, cpu = time.monotonic(), account.cpu()
        image = run(*command, "build", "-q", "--network=none", *flags, context)
        column.clock.append(time.monotonic() - began)
        column.cpu.append(account.cpu() - cpu)
        row.images.add(image.strip())


def report(rows: dict[str, Row]) -> str:
    """Lay out medians with the worst of twenty, and how many times less than docker's they are."""
    base = [median(seconds) for seconds in _columns(rows["docker"])] if "docker" in rows else []
    lines = []
    for name, row in rows.items():
        cells = [name]
        for number, seconds in enumerate(_columns(row)):
            times = f" ×{base[number] / median(seconds):.1f}" if base else ""
            cells.append(f"{1000 * median(seconds):.0f} ({1000 * worst(seconds):.0f}) ms{times}")
        lines.append([*cells, str(len(row.images))])
    head = ["median (95 %), times less", "anew", "CPU", "cached", "CPU", "images"]
    return draw(head, lines, width=130, right=True)


def _columns(row: Row) -> list[list[float]]:
    return [*row.fresh, *row.cached]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench.build")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    main(parser.parse_args().rounds)
