"""A table for people: aligned columns under a rule, cells wrapped to their column, no wider than asked."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

BOLD, FAINT, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
GAP = 2


def styled(text: str, style: str) -> str:
    """Set text off on a terminal; elsewhere leave it as it is."""
    return f"{style}{text}{PLAIN}" if text and sys.stdout.isatty() else text


def draw(head: Sequence[str], rows: Sequence[Sequence[str]], *, width: int = 100, right: bool = False) -> str:
    """Lay rows out under a head; with `right`, all columns but the first are flushed right."""
    widths = _widths([head, *rows], width - 1)
    lines = [styled(line, BOLD) for line in _row(head, widths, right)]
    lines.append(styled("─" * (sum(widths) + GAP * (len(widths) - 1)), FAINT))
    for row in rows:
        lines += _row(row, widths, right)
    return "".join(f" {line}\n" for line in lines)


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Give every column what it needs, and take what is too much from the widest but the first."""
    first, *others = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    while first + sum(others) + GAP * len(others) > width and max(others) > 1:
        others[others.index(max(others))] -= 1
    return [first, *others]


def _row(cells: Sequence[str], widths: Sequence[int], right: bool) -> list[str]:
    columns = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, columns))
    lines = []
    for index in range(height):
        pieces = [column[index] if index < len(column) else "" for column in columns]
        adjusted = [
            piece.rjust(size) if right and number else piece.ljust(size)
            for number, (piece, size) in enumerate(zip(pieces, widths, strict=True))
        ]
        lines.append((" " * GAP).join(adjusted).rstrip())
    return lines
