"""What an engine may give away: flags, environment, and the machine itself where nothing is said."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from trivet.engine.capacity.model import Budget

_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}
_LEAST = 256 << 20
_PART = 20


def _size(text: str) -> int:
    """Read bytes: 512m, 1.5g."""
    shift = _UNITS.get(text[-1:].lower(), 0)
    return int(float(text[:-1] if shift else text) * (1 << shift))


FIELDS: tuple[tuple[str, str, str, Callable[[str], float], str], ...] = (
    ("memory", "TRIVET_MEMORY", "", _size, "memory that instances can have together (default: the machine's)"),
    ("memory-reserve", "TRIVET_MEMORY_RESERVE", "", _size, "memory left to the host (default: 5 %, at least 256m)"),
    ("memory-ratio", "TRIVET_MEMORY_RATIO", "0", float, "how often memory may be promised; 0: without end"),
    ("cpus", "TRIVET_CPUS", "", float, "processors that instances can have together (default: the machine's)"),
    ("cpu-ratio", "TRIVET_CPU_RATIO", "0", float, "how often processors may be promised; 0: without end"),
    ("idle-tax", "TRIVET_IDLE_TAX", "0.75", float, "part of idle memory that can be taken for others, 0 to 1"),
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    for flag, variable, default, read, text in FIELDS:
        value = os.environ.get(variable, default)
        help_text = f"{text} [{variable}]".replace("%", "%%")
        parser.add_argument(f"--{flag}", type=_named(read), default=value or None, help=help_text)
    parser.add_argument(
        "--ksm",
        action="store_true",
        default=os.environ.get("TRIVET_KSM", "") not in ("", "0"),
        help="have the kernel keep like pages of machines once; they can tell by the time it takes [TRIVET_KSM]",
    )


def budget(values: argparse.Namespace) -> Budget:
    """Fold what was said with what the machine has. Raises `ValueError` with a sentence."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory = int(values.memory or there)
    reserve = values.memory_reserve
    if reserve is None:  # whoever names a budget has left out what the host needs
        reserve = 0 if values.memory else max(there // _PART, _LEAST)
    made = Budget(
        memory=memory,
        processors=values.cpus or float(os.cpu_count() or 1),
        memory_ratio=values.memory_ratio,
        processor_ratio=values.cpu_ratio,
        reserve=int(reserve),
        tax=values.idle_tax,
        merge=values.ksm,
    )
    if not 0 <= made.tax <= 1:
        raise ValueError(f"--idle-tax {made.tax:g} is not between 0 and 1")
    if memory <= made.reserve:
        raise ValueError(f"--memory leaves nothing beside the {made.reserve >> 20} MiB of --memory-reserve")
    return made


def _named(read: Callable[[str], float]) -> Callable[[str], float]:
    def value(text: str) -> float:
        try:
            found = read(text)
        except (ValueError, OverflowError):
            found = -1.0
        if not 0 <= found < 1 << 60:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up; sizes are written 512m or 1g")
        return found

    return value
