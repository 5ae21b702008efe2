"""Who may do what in which repository: the `[[allow]]` tables of a configuration file.

    [group]
    ops = ["ann", "bob"]

    [[allow]]
    user = ["@ops", "carol"]       names; "*" is everybody with a login, "anonymous" everybody
    repository = ["team/**"]       * stands for one part of a path, or for some of its letters; ** for any number
    rights = ["pull", "push"]      pull, push, delete

What no table allows is refused. The decision is made before anything is looked up, so what a refused
request hears, and when, doesn't depend on what there is.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Annotated

import msgspec

ANYBODY = "anonymous"
_Words = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1000)]


class Right(StrEnum):
    """What can be allowed."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"


EVERY = frozenset(Right)


class Allow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table: these users have these rights in these repositories."""

    user: _Words
    repository: _Words
    rights: Annotated[tuple[Right, ...], msgspec.Meta(min_length=1)]


class Rights(msgspec.Struct, frozen=True):
    """All tables and groups; without tables everybody with a login may do everything."""

    tables: tuple[Allow, ...] = ()
    groups: dict[str, tuple[str, ...]] = {}

    def of(self, user: str, repository: str) -> frozenset[Right]:
        """Tell which rights a user ("" without a login) has in a repository."""
        if not self.tables:
            return EVERY if user else frozenset()
        found: set[Right] = set()
        for table in self.tables:
            if any(self._means(word, user) for word in table.user) and fits(table.repository, repository):
                found.update(table.rights)
        return frozenset(found)

    def _means(self, word: str, user: str) -> bool:
        if word == ANYBODY:
            return True
        if not user:
            return False
        return word in ("*", user) or (word.startswith("@") and user in self.groups.get(word[1:], ()))


def fits(patterns: tuple[str, ...], repository: str) -> bool:
    """Tell whether a repository is meant by one of some patterns."""
    return any(_pattern(each).fullmatch(repository) for each in patterns)


@lru_cache(maxsize=10_000)
def _pattern(text: str) -> re.Pattern[str]:
    parts = [re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*)", text)]
    spelled = {r"\*\*/": "(?:.*/)?", r"\*\*": ".*", r"\*": "[^/]*"}
    return re.compile("".join(spelled.get(part, part) for part in parts))
