""".dockerignore: which paths of a context are left out."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

import msgspec

from trivet.build.error import ContextError
from trivet.build.pattern import PatternError, compile_pattern

IGNORE_FILE = ".dockerignore"
MAXIMUM = 10_000  # patterns


class _Rule(msgspec.Struct, frozen=True):
    regex: re.Pattern[str]
    keep: bool


class Ignore:
    """Patterns in order; the last that matches a path, or a directory above it, decides."""

    def __init__(self, patterns: Iterable[str], *, name: str = ".dockerignore") -> None:
        """Compile `patterns` ("!" in front keeps what an earlier one left out). Raises `ContextError`."""
        self._rules: list[_Rule] = []
        self.patterns: list[str] = []
        for number, pattern in enumerate(patterns, 1):
            if number > MAXIMUM:
                raise ContextError(f"{name} has more than {MAXIMUM} patterns")
            keep = pattern.startswith("!")
            cleaned = _clean(pattern[1:] if keep else pattern)
            if cleaned == ".":
                continue
            self.patterns.append(f"!{cleaned}" if keep else cleaned)
            try:
                self._rules.append(_Rule(compile_pattern(cleaned, deep=True), keep))
            except PatternError as error:
                raise ContextError(f"{name}: {error}") from error

    @classmethod
    def read(cls, text: str, *, name: str = ".dockerignore") -> Ignore:
        """Read the file's text: a pattern per line, # begins a comment line."""
        rows = (row.strip() for row in text.removeprefix("\ufeff").splitlines())
        return cls((row for row in rows if row and not row.startswith("#")), name=name)

    def excludes(self, path: str) -> bool:
        """Tell whether `path`, relative to the context and without a leading slash, is left out."""
        excluded = False
        for rule in self._rules:
            if rule.keep == excluded and any(rule.regex.fullmatch(part) for part in _with_parents(path)):
                excluded = not rule.keep
        return excluded

    def may_keep_below(self, path: str) -> bool:
        """Tell whether an excluded directory has to be walked all the same, for a "!" pattern."""
        return not self.excludes(path) or any(rule.keep for rule in self._rules)


def _clean(pattern: str) -> str:
    return posixpath.normpath(pattern.strip()).lstrip("/") or "."


def _with_parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
