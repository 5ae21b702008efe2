"""Where each block of a disk is: the index, an artifact's first layer; the packs are the others.

    manifest (OCI artifact)
    ├── config    what the disk is (`model.Disk`), with the digest of all its content
    └── layers
        ├── index   zstd, then MessagePack: for each block of 128 KiB a chunk, or that it is zeros
        └── packs   compressed chunks, one after the other, which images share

Blocks begin at multiples of their size, as file systems put files at multiples of theirs; so two disks that have
a file in common at any block have chunks in common, and blocks that are zeros take nothing.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import BinaryIO, NamedTuple

import msgspec
import zstandard

from trivet.base.error import Exhausted
from trivet.engine.disk import model
from trivet.engine.disk.model import BrokenDisk, Disk
from trivet.oci.descriptor import Descriptor
from trivet.oci.manifest import Manifest
from trivet.store.content import ContentStore

BLOCK = 128 << 10
LIMIT = 512 << 20  # of an index; a disk of 1 TiB full of data comes to that
PACKED_LIMIT = 256 << 20
OPEN = 32  # packs that are open at the same time
CONFIG_LIMIT = 1 << 16
RESERVE = 64 << 20  # bytes that are left on the disk

DIGEST = 32
PLACE = struct.Struct("<HQII")  # pack, offset, stored, length
RUN = struct.Struct("<i")
FLAT = 16 << 20  # bytes an index may have however small it is packed; digests don't get smaller by packing

Count = Callable[[int], None]


class Chunk(NamedTuple):
    """Where a piece of content is: `stored` bytes at `offset` of a pack (its number); `length` unpacked."""

    digest: bytes
    pack: int
    offset: int
    stored: int
    length: int


class Index(msgspec.Struct, frozen=True, array_like=True):
    """A disk of `size` bytes. `runs` tells, block by block, the number of a chunk, or -n: n blocks of zeros.

    `digests` and `places` are the chunks', end to end: a hostile index takes no more memory than it has bytes.
    """

    size: int
    digests: bytes
    places: bytes
    runs: bytes

    @property
    def count(self) -> int:
        """The number of chunks."""
        return len(self.digests) // DIGEST

    def chunk(self, number: int) -> Chunk:
        """Look up a chunk."""
        place = PLACE.unpack_from(self.places, number * PLACE.size)
        return Chunk(self.digests[number * DIGEST : (number + 1) * DIGEST], *place)

    def blocks(self) -> Iterator[int]:
        """List the runs."""
        return (number for (number,) in RUN.iter_unpack(self.runs))


def encode(index: Index) -> bytes:
    """Write an index as it is stored: the same index gives the same bytes."""
    return zstandard.ZstdCompressor(level=3).compress(msgspec.msgpack.encode(index))


def content_of(size: int, parts: Iterable[bytes | int]) -> str:
    """Name a disk's content: the digests of its blocks in order, and -n where n of them are zeros."""
    state = hashlib.sha256(b"trivet disk %d %d\n" % (size, BLOCK))
    for part in parts:
        state.update(part if isinstance(part, bytes) else b"zeros %d\n" % -part)
    return f"sha256:{state.hexdigest()}"


def packs_of(manifest: Manifest) -> tuple[Descriptor, ...]:
    """List the layers that hold chunks."""
    return manifest.layers[1:]


def read_config(content: ContentStore, manifest: Manifest, subject: str) -> Disk:
    """Read what the disk is."""
    return model.parse(content.read(manifest.config.digest, limit=CONFIG_LIMIT), subject)


def read(content: ContentStore, manifest: Manifest, subject: str) -> Index:
    """Read a manifest's index and hold it against configuration and packs. Raises `BrokenDisk`."""
    if not manifest.layers or manifest.layers[0].media_type != model.INDEX:
        raise BrokenDisk(subject, "it has no index")
    disk = read_config(content, manifest, subject)
    packed = content.read(manifest.layers[0].digest, limit=PACKED_LIMIT)
    limit = min(LIMIT, FLAT + 4 * len(packed))
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
            raw = reader.read(limit + 1)
        if len(raw) > limit:
            raise BrokenDisk(subject, f"its index is larger than {limit >> 20} MiB")
        index = msgspec.msgpack.decode(raw, type=Index)
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        raise BrokenDisk(subject, error) from error
    _check(index, disk, [layer.size for layer in packs_of(manifest)], subject)
    return index


def _check(index: Index, disk: Disk, sizes: list[int], subject: str) -> None:
    if index.size != disk.virtual_size:
        raise BrokenDisk(subject, "its index is for a disk of another size")
    count = index.count
    if len(index.digests) != count * DIGEST or len(index.places) != count * PLACE.size or len(index.runs) % RUN.size:
        raise BrokenDisk(subject, "its index is cut short")
    for pack, offset, stored, length in PLACE.iter_unpack(index.places):
        if not (pack < len(sizes) and offset <= sizes[pack] - stored):
            raise BrokenDisk(subject, "a chunk lies outside its pack")
        if not (stored > 0 and 0 < length <= BLOCK):
            raise BrokenDisk(subject, "a chunk has an impossible size")
    at, blocks = 0, -(-index.size // BLOCK)
    for run in index.blocks():
        if run >= count:
            raise BrokenDisk(subject, "a chunk is missing")
        if run >= 0 and index.chunk(run).length != min(BLOCK, index.size - at * BLOCK):
            raise BrokenDisk(subject, "a chunk does not fit its place")
        at += 1 if run >= 0 else -run
        if at > blocks:
            break
    if at != blocks:
        raise BrokenDisk(subject, "its blocks don't add up")
    told = content_of(index.size, (index.chunk(run).digest if run >= 0 else run for run in index.blocks()))
    if told != disk.content:
        raise BrokenDisk(subject, "its index is not that of its content")


class Packs:
    """The packs of one image, open for reading; a few at a time. Context manager."""

    def __init__(self, content: ContentStore, packs: Iterable[Descriptor], subject: str) -> None:
        self._content = content
        self._packs = [pack.digest for pack in packs]
        self._subject = subject
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()
        self._unpack = zstandard.ZstdDecompressor()
        self._undo = ExitStack()

    def __enter__(self) -> Packs:
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self._files.values():
            file.close()

    def chunk(self, chunk: Chunk) -> bytes:
        """Read a chunk. Raises `BrokenDisk` if it isn't what its digest says."""
        packed = os.pread(self._file(chunk.pack).fileno(), chunk.stored, chunk.offset)
        try:
            data = self._unpack.decompress(packed, max_output_size=chunk.length)
        except zstandard.ZstdError as error:
            raise BrokenDisk(self._subject, error) from error
        if len(data) != chunk.length or hashlib.sha256(data).digest() != chunk.digest:
            raise BrokenDisk(self._subject, f"a chunk of pack {chunk.pack} is not what it was")
        return data

    def _file(self, number: int) -> BinaryIO:
        file = self._files.pop(number, None) or self._content.open(self._packs[number])
        self._files[number] = file
        if len(self._files) > OPEN:
            self._files.popitem(last=False)[1].close()
        return file


def restore(
    content: ContentStore, manifest: Manifest, descriptor: int, subject: str, count: Count = lambda size: None
) -> int:
    """Write a disk into an empty file, its zeros as holes; return its size. Everything is verified on the way."""
    index = read(content, manifest, subject)
    needed = sum(BLOCK for run in index.blocks() if run >= 0)
    if needed > content.free() - RESERVE:
        problem = f"it needs {needed >> 20} MiB, {content.free() >> 20} MiB are free"
        raise Exhausted(f"cannot unpack disk image {subject}: {problem}", hint="trivet system prune")
    os.ftruncate(descriptor, index.size)
    at = 0
    with Packs(content, packs_of(manifest), subject) as packs:
        for run in index.blocks():
            if run >= 0:
                data = packs.chunk(index.chunk(run))
                if os.pwrite(descriptor, data, at * BLOCK) != len(data):
                    raise OSError(28, "No space left on device")
            at += 1 if run >= 0 else -run
            count(min(at * BLOCK, index.size))
    return index.size
