"""The layer cache: step keys to layers, in the records, so that it outlives the engine."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from trivet.build.kept import Kept
from trivet.client.schema import Removed
from trivet.client.schema_host import Usage
from trivet.oci.layer import Layer
from trivet.store.collect import Root
from trivet.store.lease import Lease
from trivet.store.record import Records

KIND = "build-cache"


class CacheEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a step made: `layer` over `below`, or None when it changed no file. Times are Unix seconds."""

    key: str
    below: tuple[Layer, ...]
    layer: Layer | None
    time: int
    used: float

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers after the step, bottom first."""
        return (*self.below, self.layer) if self.layer else self.below


HOUR = 3600  # how exactly it is known when a step was last of use


class Cache:
    """All steps remembered by one engine."""

    def __init__(self, records: Records, is_here: Callable[[str], bool], kept: Kept) -> None:
        """`is_here` tells whether a blob is in the content store, or can be had again."""
        self.kept = kept
        self._table = records.table(KIND, CacheEntry)
        self._is_here = is_here

    def find(self, key: str, lease: Lease) -> CacheEntry | None:
        """Look a step up, and remember that it was useful; the lease keeps its layer. None also when that has gone."""
        entry = self._table.get(key)
        if entry is None:
            return None
        if entry.layer:
            lease.add(entry.layer.digest)
            if not self._is_here(entry.layer.digest):
                self._table.delete(key)
                return None
        if time.time() - entry.used > HOUR:
            self._table.put(key, msgspec.structs.replace(entry, used=time.time()))
        return entry

    def keep(self, key: str, below: tuple[Layer, ...], layer: Layer | None, when: int) -> CacheEntry:
        """Remember what a step made."""
        entry = CacheEntry(key=key, below=below, layer=layer, time=when, used=time.time())
        self._table.put(key, entry)
        return entry

    def entries(self) -> list[CacheEntry]:
        """List what is remembered, oldest first; each is `Layered`, for a snapshotter's prune."""
        return self._table.all()

    def roots(self) -> list[Root]:
        """List the blobs that collection must leave alone because of the cache."""
        return [Root(f"build cache {entry.key[:12]}", entry.layer.digest) for entry in self._table.all() if entry.layer]

    def prune(self, *, unused_since: float | None = None, dry_run: bool = False) -> list[CacheEntry]:
        """Forget the steps that were of no use since a moment (default: all); layers go with the next collection."""
        forgotten = [entry for entry in self._table.all() if unused_since is None or entry.used < unused_since]
        for entry in forgotten if not dry_run else ():
            self._table.delete(entry.key)
        return forgotten

    def usage(self) -> Usage:
        """Measure its layers as stored, each once (images may share them), and what is kept for RUN --mount."""
        entries = self._table.all()
        sizes = {entry.layer.digest: entry.layer.size for entry in entries if entry.layer}
        size = sum(sizes.values()) + self.kept.size()
        return Usage(kind="build cache", total=len(entries), active=0, size=size, reclaimable=size)

    def forget(self, dry_run: bool) -> Removed:
        """Empty the cache. `freed` is what was kept for RUN --mount; layers go with the collection that follows."""
        deleted = [f"build step {entry.key[:12]}" for entry in self.prune(dry_run=dry_run)]
        return Removed(deleted=deleted, freed=self.kept.clear(dry_run=dry_run))
