"""What comes out: JSON with the facts about the host, and tables for people."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench import goal
from bench.contestant import Crowd, Result
from bench.table import draw
from trivet.engine.host import facts

RESULTS = Path("bench/results")
REFERENCE = "trivet container (api)"  # what the ratios refer to; without it, the first row

TITLES = {
    "start": "Start: from the request to the program's first instruction",
    "run": "Run: until the program has ended and the instance is removed",
    "exec": "Exec: a further program in a running instance, until its exit status is known",
    "stop": "Stop: ask to end, wait, remove",
    "bridge start": "On a bridge: from the request to the program's first instruction",
    "bridge run": "On a bridge: until the program has ended and the instance has removed itself",
    "published start": "On a bridge with a published port: from the request to the program's first instruction",
    "published run": "On a bridge with a published port: until it has ended and removed itself",
    "application": "Three services, each waiting for the one before to be healthy: up, by each one's own command",
    "foreign application": "The same by docker-compose, from its start to its end",
}


def host() -> dict[str, Any]:
    """Describe the machine and how busy it is."""
    processor = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ": unknown")
    return facts() | {
        "processor": processor.partition(":")[2].strip(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "kvm": Path("/dev/kvm").exists(),
        "cgroup_version_1": Path("/sys/fs/cgroup/cpuacct").exists(),
    }


def write(results: Sequence[Result], rounds: int, before: dict[str, Any], path: Path | None) -> Path:
    """Write everything, samples included; returns the file."""
    now = time.gmtime()
    path = path or RESULTS / f"{time.strftime('%Y%m%dT%H%M%SZ', now)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
        "rounds": rounds,
        "host": before | {"load_after": [round(value, 2) for value in os.getloadavg()]},
        "results": results,
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    return path


def text(results: Sequence[Result]) -> str:
    """Lay everything out in tables."""
    parts = [_participants(results)]
    parts += [_times(results, measure, title) for measure, title in TITLES.items()]
    parts += [_memory(results), _crowds(results), goal.text(results)]
    return "\n".join(part for part in parts if part)


def _participants(results: Sequence[Result]) -> str:
    rows = [[result.name, f"skipped: {result.skipped}" if result.skipped else result.version] for result in results]
    return draw(["peer", "version"], rows)


def _times(results: Sequence[Result], measure: str, title: str) -> str:
    found = {result.name: result.figures[measure] for result in results if measure in result.figures}
    if not found:
        return ""
    ranked = sorted(found.items(), key=lambda pair: pair[1].median)
    reference = found.get(REFERENCE, ranked[0][1])
    rows = [
        [
            name,
            *map(_milliseconds, (figure.median, figure.p10, figure.p95)),
            str(len(figure.samples)),
            _ratio(figure.median, reference.median),
            *([_milliseconds(figure.cpu), _ratio(figure.cpu, reference.cpu)] if figure.cpu and reference.cpu else []),
        ]
        for name, figure in ranked
    ]
    head = ["milliseconds", "median", "10 %", "95 %", "n", "ratio", "CPU", "ratio"]
    return f"{title}\n{draw(head[: len(rows[0])], rows, right=True)}"


def _memory(results: Sequence[Result]) -> str:
    found = {result.name: result.memory for result in results if result.memory}
    if not found:
        return ""
    ranked = sorted(found.items(), key=lambda pair: pair[1].each)
    reference = found.get(REFERENCE, ranked[0][1])
    rows = [
        [
            name,
            f"{used.each / 1e6:.3f}",
            f"{used.base / 1e6:.1f}",
            str(used.instances),
            _ratio(used.each, reference.each),
        ]
        for name, used in ranked
    ]
    head = ["megabytes (PSS)", "each", "without any", "n", "ratio"]
    return f"Memory: what an idle instance takes beyond its program\n{draw(head, rows, right=True)}"


def _crowds(results: Sequence[Result]) -> str:
    found = [(result.name, result.crowd) for result in results if result.crowd]
    if not found:
        return ""
    rows = [[label, *(show(crowd) for _, crowd in found)] for label, show in CROWD.items()]
    return f"Crowd: many idle containers\n{draw(['', *(name for name, _ in found)], rows, right=True)}"


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _ratio(value: float, reference: float) -> str:
    if not reference:
        return "–"
    ratio = value / reference
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


CROWD: dict[str, Callable[[Crowd], str]] = {
    "containers": lambda crowd: f"{crowd.containers}",
    "starts per second, no network": lambda crowd: f"{crowd.rate:.0f}",
    "starts per second, bridge": lambda crowd: f"{crowd.rate_bridged:.0f}",
    "20 at once on the bridge, ms": lambda crowd: _milliseconds(crowd.twenty),
    "20 at once, CPU, ms": lambda crowd: _milliseconds(crowd.twenty_cpu),
    "small requests per second": lambda crowd: f"{crowd.requests:.0f}",
    "list, ms": lambda crowd: _milliseconds(crowd.listed.median),
    "20 at once by Docker's API, ms": lambda crowd: _milliseconds(crowd.door_twenty),
    "small requests per second by it, on one connection": lambda crowd: f"{crowd.door_requests:.0f}",
    "list by it, ms": lambda crowd: _milliseconds(crowd.door_listed.median),
    "removing all, s": lambda crowd: f"{crowd.removed:.2f}",
    "daemon without any, MB": lambda crowd: f"{crowd.idle / 1e6:.1f}",
    "daemon and helpers with all, MB": lambda crowd: f"{crowd.all / 1e6:.1f}",
    "each, MB": lambda crowd: f"{crowd.each / 1e6:.3f}",
    "left behind": lambda crowd: ", ".join(f"{n} {what}" for what, n in crowd.left.items()) or "nothing",
}
