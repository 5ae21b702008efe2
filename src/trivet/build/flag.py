"""The --flags between an instruction's keyword and its arguments."""

from __future__ import annotations

import difflib
import re

_WORD = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|\\.|[^\s"'\\])+""", re.DOTALL)

# keyword -> flags it takes; "?" marks a switch, "*" one that may be repeated
FLAGS: dict[str, dict[str, str]] = {
    "FROM": {"platform": ""},
    "RUN": {"network": "", "mount": "*", "security": "", "device": "*"},
    "COPY": {"from": "", "chown": "", "chmod": "", "link": "?", "parents": "?", "exclude": "*"},
    "ADD": {
        "chown": "",
        "chmod": "",
        "link": "?",
        "exclude": "*",
        "checksum": "",
        "keep-git-dir": "?",
        "unpack": "?",
    },
    "HEALTHCHECK": {"interval": "", "timeout": "", "start-period": "", "start-interval": "", "retries": ""},
}

Flags = dict[str, list[str]]


class FlagError(ValueError):
    """A flag that is unknown, repeated, or has no value; `hint` may name the right one."""

    def __init__(self, problem: str, hint: str | None = None) -> None:
        super().__init__(problem)
        self.hint = hint


def read_flags(keyword: str, text: str) -> tuple[Flags, str]:
    """Take the flags off the front of an instruction's arguments. Raises `FlagError`."""
    known = FLAGS.get(keyword, {})
    found: Flags = {}
    while (text := text.lstrip()).startswith("--"):
        match = _WORD.match(text)
        if match is None:
            raise FlagError(f"cannot read flag {text.split()[0]}")
        text = text[match.end() :]
        if match[0] == "--":
            break
        name, equals, value = match[0][2:].partition("=")
        _check(keyword, known, found, name, equals)
        found.setdefault(name, []).append(_unquote(value) if equals else "true")
    return found, text.strip()


def _check(keyword: str, known: dict[str, str], found: Flags, name: str, equals: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise FlagError(f"{keyword} has no flag --{name}", f"did you mean --{near[0]}" if near else None)
    if not equals and known[name] != "?":
        raise FlagError(f"flag --{name} needs a value", f"write --{name}=VALUE")
    if name in found and known[name] != "*":
        raise FlagError(f"flag --{name} is given twice")


def _unquote(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value
