"""What a volume's snapshot is made of: a tar stream, its content cut into chunks that snapshots share.

    manifest (OCI artifact)
    ├── config   the recipe: zstd, then MessagePack; headers of the stream literally, content as numbers of chunks
    └── layers   packs: compressed chunks, one after the other; each snapshot adds one with what is new

Chunks begin where files begin, so that a changed page of a database costs one chunk. As everything is a
blob of the content store, registries store snapshots, and only what they lack is sent.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import BinaryIO

import msgspec
import zstandard

from trivet.base.error import Corrupt
from trivet.oci.descriptor import Descriptor
from trivet.oci.manifest import Manifest
from trivet.store.content import ContentStore, Ingest

ARTIFACT = "application/vnd.trivet.volume.v1"
RECIPE = "application/vnd.trivet.volume.recipe.v1+msgpack.zstd"
PACK = "application/vnd.trivet.volume.pack.v1"

CHUNK = 128 << 10
LITERAL = 1024  # shorter pieces of the stream stand in the recipe itself
LIMIT = 256 << 20  # of a recipe; a million files come to a tenth of that
PACKED_LIMIT = 64 << 20
PARTS = 8_000_000  # of a recipe's stream; a million files have three
PACKS = 64  # more packs than this, and the smallest are not used again
LEVEL = 1


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Where a piece of content is: `stored` bytes at `offset` of a pack (a layer's number); `length` unpacked."""

    digest: bytes
    pack: int
    offset: int
    stored: int
    length: int


class Recipe(msgspec.Struct, frozen=True, array_like=True):
    """How to put the tar stream together: numbers of chunks and literal bytes, in order. `size` is its length."""

    size: int
    chunks: tuple[Chunk, ...]
    stream: tuple[int | bytes, ...]


class _Outline(msgspec.Struct, frozen=True, array_like=True):
    """A recipe whose parts haven't been decoded."""

    size: int
    chunks: msgspec.Raw
    stream: msgspec.Raw


class BrokenSnapshot(Corrupt):
    """A snapshot that can't be put together again."""

    def __init__(self, subject: str, problem: object) -> None:
        super().__init__(f"snapshot {subject} is corrupt: {problem}")


def encode(recipe: Recipe) -> bytes:
    """Write a recipe as it is stored."""
    return zstandard.ZstdCompressor(level=3).compress(msgspec.msgpack.encode(recipe))


def read(content: ContentStore, manifest: Manifest, subject: str) -> Recipe:
    """Read a manifest's recipe and hold it against the packs. Raises `BrokenSnapshot`."""
    packed = content.read(manifest.config.digest, limit=PACKED_LIMIT)
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
            pieces = bytearray()
            while len(pieces) <= LIMIT and (piece := reader.read(1 << 20)):  # room is made for what is asked for
                pieces += piece
        raw = bytes(pieces)
        if len(raw) > LIMIT:
            raise BrokenSnapshot(subject, f"its recipe is larger than {LIMIT >> 20} MiB")
        recipe = _decode(raw, len(packed), subject)
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        raise BrokenSnapshot(subject, error) from error
    sizes = [layer.size for layer in manifest.layers]
    for chunk in recipe.chunks:
        if not (0 <= chunk.pack < len(sizes) and 0 <= chunk.offset <= sizes[chunk.pack] - chunk.stored):
            raise BrokenSnapshot(subject, "a chunk lies outside its pack")
        if not (chunk.stored > 0 and 0 < chunk.length <= CHUNK and len(chunk.digest) == 32):
            raise BrokenSnapshot(subject, "a chunk has an impossible size")
    total = 0
    for part in recipe.stream:
        if isinstance(part, int) and not 0 <= part < len(recipe.chunks):
            raise BrokenSnapshot(subject, "a chunk is missing")
        total += recipe.chunks[part].length if isinstance(part, int) else len(part)
    if total != recipe.size:
        raise BrokenSnapshot(subject, "its parts don't add up")
    return recipe


def _decode(raw: bytes, packed: int, subject: str) -> Recipe:
    """Decode a recipe that may be a bomb: a byte of it can become hundreds as an object.

    Digests don't get smaller by packing, so there are no more chunks than what is packed has room for.
    """
    outline = msgspec.msgpack.decode(raw, type=_Outline)
    if _length(outline.chunks) > packed // 32 + 1 or _length(outline.stream) > PARTS:
        raise BrokenSnapshot(subject, "its recipe has more parts than it can have")
    return msgspec.msgpack.decode(raw, type=Recipe)


def _length(array: msgspec.Raw) -> int:
    """Read how many elements an array has, as MessagePack writes it in front of them."""
    head = memoryview(array)
    kind = head[0]
    if kind & 0xF0 == 0x90:
        return kind & 0xF
    if kind in (0xDC, 0xDD):
        return int.from_bytes(head[1 : 3 if kind == 0xDC else 5])
    return 0  # no array, which the decoder says


class Stream:
    """The tar stream of a snapshot, to be read once. Context manager."""

    def __init__(self, content: ContentStore, manifest: Manifest, subject: str) -> None:
        self.recipe = read(content, manifest, subject)
        self._subject = subject
        self._undo = ExitStack()
        self._packs: list[BinaryIO] = []
        with ExitStack() as undo:
            self._packs = [undo.enter_context(content.open(layer.digest)) for layer in manifest.layers]
            self._undo = undo.pop_all()
        self._parts = self._pieces()
        self._rest = memoryview(b"")
        self._unpack = zstandard.ZstdDecompressor()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def read(self, size: int = -1, /) -> bytes:
        """Read the next bytes, at most `size`; b"" at the end. Raises `BrokenSnapshot`."""
        if not self._rest:
            self._rest = memoryview(next(self._parts, b""))
        wanted = len(self._rest) if size < 0 else size
        piece, self._rest = self._rest[:wanted], self._rest[wanted:]
        return bytes(piece)

    def _pieces(self) -> Iterator[bytes]:
        for part in self.recipe.stream:
            yield self._chunk(self.recipe.chunks[part]) if isinstance(part, int) else part

    def _chunk(self, chunk: Chunk) -> bytes:
        packed = os.pread(self._packs[chunk.pack].fileno(), chunk.stored, chunk.offset)
        try:
            content = self._unpack.decompress(packed, max_output_size=chunk.length)
        except zstandard.ZstdError as error:
            raise BrokenSnapshot(self._subject, error) from error
        if len(content) != chunk.length or hashlib.sha256(content).digest() != chunk.digest:
            raise BrokenSnapshot(self._subject, f"a chunk of pack {chunk.pack} is not what it was")
        return content


class Writer:
    """Puts content into a new pack unless an earlier one has it. `earlier` are snapshots of the same volume."""

    def __init__(self, pack: Ingest, earlier: Iterable[tuple[Manifest, Recipe]] = ()) -> None:
        self._pack = pack
        self._compress = zstandard.ZstdCompressor(level=LEVEL)
        self._numbers: dict[bytes, int] = {}
        self._chunks: list[tuple[bytes, str, int, int, int]] = []  # digest, pack's digest ("" is the new one), …
        self._known: dict[bytes, tuple[str, int, int, int]] = {}
        self._sizes: dict[str, Descriptor] = {}
        for manifest, recipe in earlier:
            self._remember(manifest, recipe)

    def _remember(self, manifest: Manifest, recipe: Recipe) -> None:
        """Know what a snapshot has; of very many packs, only the largest are used on."""
        using = sorted(manifest.layers, key=lambda layer: -layer.size)[
            : PACKS // 2 if len(manifest.layers) >= PACKS else PACKS
        ]
        kept = {layer.digest for layer in using}
        self._sizes.update((layer.digest, layer) for layer in using)
        for chunk in recipe.chunks:
            pack = manifest.layers[chunk.pack].digest
            if pack in kept:
                self._known.setdefault(chunk.digest, (pack, chunk.offset, chunk.stored, chunk.length))

    def put(self, piece: bytes | memoryview) -> int:
        """Store at most CHUNK bytes; return the chunk's number."""
        digest = hashlib.sha256(piece).digest()
        number = self._numbers.get(digest)
        if number is None:
            number = self._numbers[digest] = len(self._chunks)
            self._chunks.append((digest, *(self._known.get(digest) or self._append(piece))))
        return number

    def _append(self, piece: bytes | memoryview) -> tuple[str, int, int, int]:
        packed = self._compress.compress(bytes(piece))
        offset = self._pack.size
        self._pack.write(packed)
        return "", offset, len(packed), len(piece)

    def recipe(self, stream: Sequence[int | bytes], new: str) -> tuple[Recipe, list[Descriptor]]:
        """Write down a stream; also give the packs it needs. `new` is the digest of the new pack."""
        used = dict.fromkeys(part for part in stream if isinstance(part, int))
        numbers = {old: number for number, old in enumerate(used)}
        packs: dict[str, int] = {}
        chunks = []
        for old in used:
            digest, pack, offset, stored, length = self._chunks[old]
            place = packs.setdefault(pack or new, len(packs))
            chunks.append(Chunk(digest, place, offset, stored, length))
        parts = tuple(numbers[part] if isinstance(part, int) else part for part in stream)
        size = sum(chunks[part].length if isinstance(part, int) else len(part) for part in parts)
        layers = [
            self._sizes.get(pack) or Descriptor(media_type=PACK, digest=pack, size=self._pack.size) for pack in packs
        ]
        return Recipe(size, tuple(chunks), parts), layers


def manifest_of(config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str]) -> Manifest:
    """Make the artifact's manifest."""
    return Manifest(
        schema_version=2,
        media_type="application/vnd.oci.image.manifest.v1+json",
        artifact_type=ARTIFACT,
        config=config,
        layers=tuple(layers),
        annotations=dict(annotations),
    )
