"""Docker's filters: which there are, and how their values are compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from trivet.api.docker.duration import nanoseconds
from trivet.api.docker.route import Filters
from trivet.base.error import InvalidArgument

YES, NO = ("1", "true", "True", "TRUE", "t", "T"), ("0", "false", "False", "FALSE", "f", "F")
LONGEST = 256
REPEATED_GROUP = re.compile(r"\)[*+?{]")
REPETITION = re.compile(r"[*+{]")


def known(wanted: Filters, *keys: str) -> None:
    """Raise `InvalidArgument` for a filter that isn't one of `keys`."""
    for key in wanted:
        if key not in keys:
            raise InvalidArgument(f"invalid filter '{key}'")


def one_of(wanted: Filters, key: str, words: Sequence[str]) -> None:
    """Raise `InvalidArgument` unless a filter's values are among `words`."""
    for value in wanted.get(key, ()):
        if value not in words:
            told = f"invalid value for {key} ({value}): must be one of {', '.join(words)}"
            raise InvalidArgument(f"invalid filter '{key}={value}'" + (f": {told}" if key == "health" else ""))


def truth(wanted: Filters, key: str) -> bool | None:
    """Read a filter that is yes or no; None where it isn't given. Raises `InvalidArgument`."""
    values = wanted.get(key)
    if not values:
        return None
    if len(values) > 1 or values[0] not in (*YES, *NO):
        raise InvalidArgument(f"invalid filter '{key}=[{' '.join(values)}]'")
    return values[0] in YES


def moment(wanted: Filters) -> int:
    """Read `until` as Unix nanoseconds; 0 where it isn't given. Raises `InvalidArgument`."""
    values = wanted.get("until", [])
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    try:
        return nanoseconds(values[0]) if values else 0
    except InvalidArgument:
        raise InvalidArgument(f'failed to parse value as time or duration: "{values[0]}"') from None


def whole(wanted: Filters, key: str) -> None:
    """Raise `InvalidArgument` unless a filter's values are whole numbers."""
    for value in wanted.get(key, ()):
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", value):
            raise InvalidArgument(f'strconv.Atoi: parsing "{value}": invalid syntax')


def labelled(wanted: Filters, labels: Mapping[str, str]) -> bool:
    """Tell whether labels are as `label` and `label!` want them: with all of the first, with none of the second."""
    return all(_has(labels, text) for text in wanted.get("label", ())) and not any(
        _has(labels, text) for text in wanted.get("label!", ())
    )


def named(wanted: Filters, key: str, *names: str) -> bool:
    """Tell whether one of the names has something that one of the patterns matches; yes where there are none."""
    patterns = [pattern(text) for text in wanted.get(key, ())]
    return not patterns or any(each.search(name) for each in patterns for name in names)


def pattern(text: str) -> re.Pattern[str]:
    """Read a regular expression, one of those that can't take long. Raises `InvalidArgument`."""
    if len(text) > LONGEST or REPEATED_GROUP.search(text) or len(REPETITION.findall(text)) > 3:
        raise InvalidArgument(f"filter {text[:40]!r} is too complex a regular expression")
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidArgument(f"error parsing regexp: {error}: `{text}`") from None


def referenced(patterns: Iterable[str], names: Iterable[str]) -> bool:
    """Tell whether a name of an image fits a pattern such as `alpine`, `*/web` or `web:1*`: no `*` crosses a slash."""
    return any(_glob(each, name) or _glob(each, _untagged(name)) for each in patterns for name in names)


def _untagged(name: str) -> str:
    head, colon, tail = name.partition("@")[0].rpartition(":")
    return head if colon and "/" not in tail else name.partition("@")[0]


def _glob(pattern_: str, name: str) -> bool:
    parts, words = pattern_[:LONGEST].split("/"), name.split("/")
    return len(parts) == len(words) and all(map(fnmatchcase, words, parts))


def _has(labels: Mapping[str, str], text: str) -> bool:
    key, sign, value = text.partition("=")
    return key in labels and (not sign or labels[key] == value)
