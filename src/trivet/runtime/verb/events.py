"""events: print what a container uses, every few seconds or once, and when its memory ran out."""

from __future__ import annotations

import argparse
import json
import sys
import time

from trivet.base.error import InvalidArgument
from trivet.kernel import cgroup_stat
from trivet.runtime.container import Container

_STEP = 0.1


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--interval", default="5s", help="time between two samples (default: 5s)")
    parser.add_argument("--stats", action="store_true", help="print one sample and end")
    parser.add_argument("id")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    container = Container.find(arguments.root, arguments.id)
    container.expect("running", "paused", "created")
    interval = _seconds(arguments.interval)
    kills, due = container.group.usage().out_of_memory, time.monotonic()
    if arguments.stats:
        _print(container, "stats", cgroup_stat.stats(container.group))
        return 0
    while container.process() is not None:
        now = container.group.usage().out_of_memory
        if now > kills:
            _print(container, "oom", None)
            kills = now
        if time.monotonic() >= due:
            _print(container, "stats", cgroup_stat.stats(container.group))
            due += interval
        time.sleep(min(_STEP, interval))
    return 0


def _print(container: Container, kind: str, data: object) -> None:
    event = {"type": kind, "id": container.kept.id} | ({} if data is None else {"data": data})
    sys.stdout.write(json.dumps(event, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def _seconds(text: str) -> float:
    """Read a duration as Go writes them: 500ms, 5s, 1m."""
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit() and float(number) > 0:
            return float(number) * factor
    raise InvalidArgument(f"{text!r} is not a duration, such as 500ms or 5s")
