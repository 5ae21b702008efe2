"""--chmod: octal, or symbolic as chmod(1) has it (u=rwX,go=rX)."""

from __future__ import annotations

import re
from collections.abc import Callable

from trivet.build.error import BuildError
from trivet.build.tree import Node

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*|[-+=][ugo])+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}

Change = Callable[[Node], int]
"""Gives a node's new mode."""


def parse_chmod(text: str) -> Change:
    """Read --chmod. Raises `BuildError`."""
    if re.fullmatch("[0-7]{3,4}", text):
        mode = int(text, 8)
        return lambda node: mode
    clauses = [_CLAUSE.fullmatch(part) for part in text.split(",")]
    if len(text) > 200 or not all(clauses):
        hint = "write --chmod=755, or --chmod=u=rwX,go=rX"
        raise BuildError(f"--chmod={text[:60]} is neither an octal nor a symbolic mode", hint=hint)
    steps = [(match[1] or "a", *action) for match in clauses if match for action in _ACTION.findall(match[2])]

    def change(node: Node) -> int:
        mode = node.mode
        for who, operator, what in steps:
            mode = _apply(mode, who.replace("a", "ugo"), operator, what, directory=node.kind == "directory")
        return mode

    return change


def _apply(mode: int, who: str, operator: str, what: str, *, directory: bool) -> int:
    """Carry out one action on every class of users named."""
    before = mode
    for each in set(who):
        shift = _SHIFTS[each]
        bits = _bits(before, what, directory=directory) << shift
        special = _special(each, what)
        if operator == "+":
            mode |= bits | special
        elif operator == "-":
            mode &= ~(bits | special)
        else:
            mode = mode & ~(7 << shift) | bits | special
    return mode


def _bits(mode: int, what: str, *, directory: bool) -> int:
    """Give the three bits for one class: of letters, or copied from another class."""
    if what and what in "ugo":
        return mode >> _SHIFTS[what] & 7
    bits = sum(_BITS[letter] for letter in set(what) & _BITS.keys())
    return bits | 1 if "X" in what and (directory or mode & 0o111) else bits


def _special(who: str, what: str) -> int:
    """Give the bits for set-id and sticky."""
    if "s" in what and who in "ug":
        return 0o4000 if who == "u" else 0o2000
    return 0o1000 if "t" in what and who == "o" else 0
