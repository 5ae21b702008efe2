"""Leases: content somebody is working with, which no record names yet.

A pull or a build holds a lease while it runs and adds every digest before it looks whether the blob
is there. Adding and collecting both happen under the lock of the record file, so a blob that was
seen after its lease was added can't be collected until the lease ends. A lease ends with its engine,
who alone collects, and is therefore kept in memory; a resumable one outlives a crash, and is a record.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from trivet.base.error import TrivetError, Unavailable
from trivet.oci.layer import Layer
from trivet.store.record import Records

WEEK = 7 * 86400.0


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is held, why, and since when (Unix time). One that is `resumable` outlives its engine for a week."""

    id: str
    purpose: str
    created: float
    digests: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()  # unpacked, of which no blob may tell
    resumable: bool = False
    broken: bool = False  # nobody holds it any more


class Lease:
    """A lease being held."""

    def __init__(self, leases: Leases, key: str) -> None:
        self._leases = leases
        self.id = key

    def add(self, *digests: str) -> None:
        """Protect blobs, and everything they refer to, whether or not they are here already."""
        self._leases.extend(self.id, digests)

    def keep(self, layers: tuple[Layer, ...]) -> None:
        """Protect what is unpacked of a pile of layers, too; of a resumable lease, as long as that stays."""
        self._leases.pile(self.id, layers)


class Leases:
    """All leases of one engine."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self._table = records.table("lease", LeaseRecord)
        self._held: dict[str, LeaseRecord] = {}

    @contextmanager
    def hold(self, purpose: str, *, resumable: bool = False) -> Iterator[Lease]:
        """Hold a lease while the block runs. `purpose` is what `trivet why` shows.

        With `resumable`, what was gathered for the same purpose stays if the engine dies, the block is cancelled, or
        somebody couldn't be reached, until the purpose is fulfilled.
        """
        key = secrets.token_hex(8)
        record = LeaseRecord(id=key, purpose=purpose, created=time.time(), resumable=resumable)
        if resumable:
            self._table.insert(key, record)
        else:
            with self.records.reading():
                self._held[key] = record
        again = False
        try:
            yield Lease(self, key)
            if resumable:
                self.drop_broken(purpose)
        except BaseException as error:
            again = resumable and (isinstance(error, Unavailable) or not isinstance(error, TrivetError))
            raise
        finally:
            if again:
                self._break(key)
            else:
                with self.records.reading():
                    if self._held.pop(key, None) is None:
                        self._table.delete(key)

    def extend(self, key: str, digests: tuple[str, ...]) -> None:
        """Add digests to a lease. Raises `NotFound` when it has ended."""
        with self.records.reading():
            if (record := self._held.get(key)) is not None:
                self._held[key] = _with(record, digests)
                return
        with self.records.transaction():
            self._table.update(key, _with(self._table.find(key), digests))

    def pile(self, key: str, layers: tuple[Layer, ...]) -> None:
        """Set the pile of layers that a resumable lease keeps unpacked."""
        with self.records.transaction():
            self._table.update(key, msgspec.structs.replace(self._table.find(key), layers=layers))

    def _break(self, key: str) -> None:
        """Keep a lease that nobody holds any more, in place of older ones for the same purpose."""
        with self.records.transaction():
            record = self._table.find(key)
            older = [each for each in self._table.all() if each.broken and each.purpose == record.purpose]
            union = tuple(dict.fromkeys(digest for each in (record, *older) for digest in each.digests))
            for each in older:
                self._table.delete(each.id)
            if union:
                self._table.update(key, msgspec.structs.replace(record, digests=union, broken=True))
            else:
                self._table.delete(key)

    def all(self) -> list[LeaseRecord]:
        """List the leases held, oldest first."""
        with self.records.reading():
            return sorted([*self._table.all(), *self._held.values()], key=lambda record: record.created)

    def reset(self) -> None:
        """Drop every lease: nobody but the engine that starts now can hold one. Those of a cut pull stay a week."""
        oldest = time.time() - WEEK
        with self.records.transaction():
            self._held.clear()
            for record in self._table.all():
                if record.resumable and record.created > oldest:
                    self._table.update(record.id, msgspec.structs.replace(record, broken=True))
                else:
                    self._table.delete(record.id)

    def drop_broken(self, purpose: str | None = None) -> None:
        """Drop what is kept for somebody who tries again, for one purpose or for all."""
        with self.records.transaction():
            for record in self._table.all():
                if record.broken and purpose in (None, record.purpose):
                    self._table.delete(record.id)


def _with(record: LeaseRecord, digests: tuple[str, ...]) -> LeaseRecord:
    return msgspec.structs.replace(record, digests=tuple(dict.fromkeys(record.digests + digests)))
