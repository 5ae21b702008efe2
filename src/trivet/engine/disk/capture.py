"""From a raw disk to chunks in packs: what is zeros is passed over, what is here already is used again."""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec
import zstandard

from trivet.engine.disk import index as indexes
from trivet.engine.disk import model
from trivet.engine.disk.index import BLOCK, PLACE, RUN, Count, Index
from trivet.oci.descriptor import Descriptor
from trivet.oci.manifest import Manifest
from trivet.store.content import ContentStore, explaining_full
from trivet.store.lease import Lease

PACK = 64 << 20  # bytes of a pack, about
PARTS = 200  # packs that a new image makes at most; a very large disk has larger ones
REUSED = 200  # packs of earlier images that are used at most
LEVEL = 3
ZEROS = bytes(BLOCK)

Earlier = Iterable[tuple[Manifest, Index]]


class Place(NamedTuple):
    """Where a chunk is."""

    pack: str
    offset: int
    stored: int
    length: int


class Scan(NamedTuple):
    """What a disk is made of: the digest of each block, or -n where n of them are zeros; and where a chunk first is."""

    size: int
    parts: list[bytes | int]
    first: dict[bytes, int]


def scan(descriptor: int, size: int, count: Count = lambda size: None) -> Scan:
    """Read a raw disk; holes aren't read. `size` may be a little more than the file has: that is zeros."""
    parts: list[bytes | int] = []
    first: dict[bytes, int] = {}
    end, blocks = os.fstat(descriptor).st_size, -(-size // BLOCK)
    at = 0
    while at < blocks:
        begin = min(_data(descriptor, at * BLOCK, end) // BLOCK, blocks)
        if begin > at:
            _zeros(parts, begin - at)
            at = begin
            continue
        data = _block(descriptor, at, size)
        if data == ZEROS[: len(data)]:
            _zeros(parts, 1)
        else:
            digest = hashlib.sha256(data).digest()
            first.setdefault(digest, at)
            parts.append(digest)
        at += 1
        count(min(at * BLOCK, size))
    return Scan(size, parts, first)


def _data(descriptor: int, offset: int, end: int) -> int:
    """Find where the next data is, at or after `offset`."""
    if offset >= end:
        return 1 << 62
    try:
        return max(os.lseek(descriptor, offset, os.SEEK_DATA), offset)
    except OSError as error:
        if error.errno == errno.ENXIO:  # lseek(2): a hole up to the end
            return 1 << 62
        raise


def _block(descriptor: int, at: int, size: int) -> bytes:
    """Read a block; behind the end of the file there are zeros."""
    length = min(BLOCK, size - at * BLOCK)
    return os.pread(descriptor, length, at * BLOCK).ljust(length, b"\0")


def _zeros(parts: list[bytes | int], count: int) -> None:
    last = parts[-1] if parts else b""
    if isinstance(last, int):
        parts[-1] = last - count
    else:
        parts.append(-count)


def store(
    content: ContentStore, lease: Lease, descriptor: int, found: Scan, earlier: Earlier, count: Count
) -> tuple[list[Descriptor], int]:
    """Store a scanned disk; return its layers, index first, and the bytes that were new."""
    places, sizes = _reuse(content, lease, found, earlier)
    fresh = [digest for digest in found.first if digest not in places]
    new = 0
    for pack, placed in _packs(content, lease, descriptor, found, fresh, count):
        places.update(placed)
        sizes[pack.digest] = pack
        new += pack.size
    raw, packs = _index(found, places, sizes)
    digest = content.add(raw, lease=lease)
    return [Descriptor(media_type=model.INDEX, digest=digest, size=len(raw)), *packs], new + len(raw)


def _reuse(
    content: ContentStore, lease: Lease, found: Scan, earlier: Earlier
) -> tuple[dict[bytes, Place], dict[str, Descriptor]]:
    """Choose packs of earlier images: those of which at least half would be needed, since a pack travels whole."""
    known: dict[bytes, Place] = {}
    sizes: dict[str, Descriptor] = {}
    for manifest, index in earlier:
        packs = indexes.packs_of(manifest)
        for chunk in map(index.chunk, range(index.count)):
            if chunk.digest in found.first and chunk.digest not in known:
                pack = packs[chunk.pack]
                sizes[pack.digest] = pack
                known[chunk.digest] = Place(pack.digest, chunk.offset, chunk.stored, chunk.length)
    used: Counter[str] = Counter()
    for place in known.values():
        used[place.pack] += place.stored
    wanted = [pack for pack, size in used.most_common() if size * 2 >= sizes[pack].size][:REUSED]
    lease.add(*wanted)
    kept = {pack for pack in wanted if content.exists(pack)}
    places = {digest: place for digest, place in known.items() if place.pack in kept}
    return places, {pack: sizes[pack] for pack in sizes if pack in kept}


def _packs(
    content: ContentStore, lease: Lease, descriptor: int, found: Scan, fresh: list[bytes], count: Count
) -> Iterator[tuple[Descriptor, Mapping[bytes, Place]]]:
    """Write chunks into new packs."""
    limit = max(PACK, len(fresh) * BLOCK // PARTS)
    compress = zstandard.ZstdCompressor(level=LEVEL)
    left, done = iter(fresh), 0
    digest = next(left, None)
    while digest is not None:
        rows: list[tuple[bytes, int, int, int]] = []
        with content.ingest(lease=lease) as pack:
            while digest is not None and pack.size < limit:
                data = _block(descriptor, found.first[digest], found.size)
                packed = compress.compress(data)
                rows.append((digest, pack.size, len(packed), len(data)))
                with explaining_full(content.root):
                    pack.write(packed)
                done += len(data)
                count(done)
                digest = next(left, None)
        yield (
            Descriptor(media_type=model.PACK, digest=pack.digest, size=pack.size),
            {row[0]: Place(pack.digest, *row[1:]) for row in rows},
        )


def _index(
    found: Scan, places: Mapping[bytes, Place], sizes: Mapping[str, Descriptor]
) -> tuple[bytes, list[Descriptor]]:
    numbers: dict[bytes, int] = {}
    packs: dict[str, int] = {}
    described, runs = bytearray(), bytearray()
    for part in found.parts:
        if isinstance(part, int):
            runs += RUN.pack(part)
            continue
        number = numbers.setdefault(part, len(numbers))
        if number * PLACE.size == len(described):
            place = places[part]
            pack = packs.setdefault(place.pack, len(packs))
            described += PLACE.pack(pack, place.offset, place.stored, place.length)
        runs += RUN.pack(number)
    index = Index(found.size, b"".join(numbers), bytes(described), bytes(runs))
    return indexes.encode(index), [sizes[pack] for pack in packs]


def manifest_of(config: Descriptor, layers: Iterable[Descriptor], annotations: Mapping[str, str]) -> bytes:
    """Write the artifact's manifest."""
    manifest = Manifest(
        schema_version=2,
        media_type="application/vnd.oci.image.manifest.v1+json",
        artifact_type=model.ARTIFACT,
        config=config,
        layers=tuple(layers),
        annotations=dict(annotations),
    )
    return msgspec.json.encode(manifest, order="deterministic")
