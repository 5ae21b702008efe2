"""What the shipper is told: a file, replaced as a whole."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trivet.base.error import Corrupt


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One instance's log, and where it goes.

    `log` is the newest file of it, `sent` tells how far it was sent. `tag` is ready, `extra` are the labels and
    variables that go along.
    """

    id: str
    name: str
    image: str
    driver: str
    options: dict[str, str]
    log: str
    sent: str
    tag: str
    extra: dict[str, str] = {}


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """Everything to be sent; `journal` is where journald listens."""

    journal: str
    entries: tuple[Entry, ...] = ()


def read(path: Path) -> Book:
    """Read the book. Raises OSError and `Corrupt`."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Book)
    except msgspec.DecodeError as error:
        raise Corrupt(f"malformed book of logs {path}: {error}") from error


def write(path: Path, book: Book) -> None:
    """Replace the book."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(book))
    fresh.chmod(0o600)
    fresh.rename(path)
