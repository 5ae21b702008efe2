"""The contract of a receiver, and which one an entry wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from trivet.launch.log import Record
from trivet.shipper.book import Book, Entry
from trivet.shipper.fluentd import Fluentd
from trivet.shipper.journald import Journald
from trivet.shipper.syslog import Syslog


class Receiver(Protocol):
    """Takes records, in order. One that can't raises OSError and is asked again with the same ones, later."""

    def send(self, records: Sequence[Record]) -> None:
        """Send records; they are sent when this returns, as far as the protocol can tell."""

    def close(self) -> None:
        """Let go of the connection; the next `send` makes another."""


MAKERS: dict[str, Callable[[Entry, Book], Receiver]] = {
    "journald": lambda entry, book: Journald(entry, book.journal),
    "syslog": lambda entry, _: Syslog(entry),
    "fluentd": lambda entry, _: Fluentd(entry),
}


def receiver(entry: Entry, book: Book) -> Receiver:
    """Make the receiver of an entry."""
    return MAKERS[entry.driver](entry, book)
