"""Digests: the names of content, `algorithm:hexadecimal`.

A digest is checked against the grammar before it becomes a path or a URL (CVE-2024-3727); an
algorithm we don't know is refused, never truncated or ignored.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Annotated

import msgspec

from trivet.base.error import Corrupt, InvalidArgument

if TYPE_CHECKING:
    from hashlib import _Hash

LENGTHS = {"sha256": 64, "sha512": 128}
"""Known algorithms, and how many hexadecimal digits each has."""

PATTERN = "(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})"

Digest = Annotated[str, msgspec.Meta(pattern=rf"\A{PATTERN}\Z")]
"""A digest as a field of a record: the decoder refuses everything else."""


class MalformedDigest(InvalidArgument):
    """A text that should have been a digest."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"malformed digest {text[:140]!r}: not sha256: with 64 or sha512: with 128 hexadecimal digits",
        )


class DigestMismatch(Corrupt):
    """Content that isn't what its digest promised."""

    def __init__(self, subject: str, expected: str, actual: str) -> None:
        super().__init__(f"{subject} is corrupt: its digest is {actual}, expected {expected}")
        self.expected = expected
        self.actual = actual


def check(text: str) -> str:
    """Return `text` if it is a digest. Raises `MalformedDigest`."""
    if not re.fullmatch(PATTERN, text):
        raise MalformedDigest(text)
    return text


def split(digest: str) -> tuple[str, str]:
    """Take a digest apart: algorithm and hexadecimal digits. Raises `MalformedDigest`."""
    algorithm, _, digits = check(digest).partition(":")
    return algorithm, digits


def hasher(algorithm: str = "sha256") -> _Hash:
    """Start hashing; see `name`. Raises `MalformedDigest` for an algorithm that isn't in `LENGTHS`."""
    if algorithm not in LENGTHS:
        raise MalformedDigest(f"{algorithm}:")
    return hashlib.new(algorithm, usedforsecurity=True)


def name(state: _Hash) -> str:
    """Spell the digest of what `state` has seen so far."""
    return f"{state.name}:{state.hexdigest()}"


def of(data: bytes, algorithm: str = "sha256") -> str:
    """Digest a few bytes in memory."""
    state = hasher(algorithm)
    state.update(data)
    return name(state)


def short(digest: str) -> str:
    """Abbreviate for people: the first twelve digits."""
    return digest.partition(":")[2][:12]
