"""Recipes of volumes' snapshots, from registries that may say anything."""

from __future__ import annotations

import hashlib
import tracemalloc

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.engine.volume.recipe import PACK, RECIPE, BrokenSnapshot, Recipe, manifest_of, read
from trivet.oci.descriptor import Descriptor
from trivet.oci.manifest import Manifest
from trivet.store.content import ContentStore


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> ContentStore:
    """A store."""
    return ContentStore(tmp_path_factory.mktemp("content"))


def stored(content: ContentStore, raw: bytes, pack: bytes = b"pack" * 100) -> Manifest:
    """Store a recipe as it comes out of its packing, and a pack."""
    packed = zstandard.ZstdCompressor(level=19).compress(raw)
    config = Descriptor(media_type=RECIPE, digest=content.add(packed), size=len(packed))
    return manifest_of(config, [Descriptor(media_type=PACK, digest=content.add(pack), size=len(pack))], {})


def array(length: int, element: bytes) -> bytes:
    """Write a long MessagePack array of one thing again and again."""
    return b"\xdd" + length.to_bytes(4) + element * length


@pytest.mark.parametrize("what", ["chunks", "stream", "literals"])
def test_a_recipe_is_no_bomb(content: ContentStore, what: str) -> None:
    """A few kilobytes that would become gigabytes of objects are refused, and take little memory meanwhile."""
    many = 30_000_000
    chunks, stream = {
        "chunks": (array(4_000_000, b"\x95\xc4\x00\x00\x00\x01\x01"), b"\x90"),
        "stream": (b"\x90", array(many, b"\x00")),
        "literals": (b"\x90", array(many // 3, b"\xc4\x00")),
    }[what]
    manifest = stored(content, b"\x93\x00" + chunks + stream)
    assert manifest.config.size < 50_000
    tracemalloc.start()
    with pytest.raises(BrokenSnapshot, match="more parts than it can have"):
        read(content, manifest, "data@1")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 << 20


@settings(max_examples=200)
@given(data=st.data())
def test_recipes_may_say_anything(content: ContentStore, data: st.DataObject) -> None:
    """Whatever a recipe says, it adds up or is refused."""
    numbers = st.sampled_from([-1, 0, 1, 2, 31, 32, 400, 1 << 17, 1 << 40])
    chunk = st.tuples(st.sampled_from([b"", b"d" * 32]), *[numbers] * 4)
    whole = st.tuples(
        numbers, st.lists(chunk, max_size=3), st.lists(numbers | st.binary(max_size=5) | st.none(), max_size=5)
    )
    raw = msgspec.msgpack.encode(data.draw(whole | st.lists(numbers) | st.binary(max_size=20)))
    cut = data.draw(st.none() | st.integers(0, len(raw)))
    try:
        recipe = read(content, stored(content, raw[:cut]), "data@1")
    except BrokenSnapshot:
        return
    assert isinstance(recipe, Recipe)
    sizes = [recipe.chunks[part].length if isinstance(part, int) else len(part) for part in recipe.stream]
    assert sum(sizes) == recipe.size


def test_what_is_written_is_read(content: ContentStore) -> None:
    """A recipe with many chunks, as an honest one has them, is no bomb."""
    real = [hashlib.sha256(bytes([number >> 8, number & 255])).digest() for number in range(3000)]
    raw = msgspec.msgpack.encode((3000, [(each, 0, 0, 1, 1) for each in real], list(range(3000))))
    assert read(content, stored(content, raw), "data@1").size == 3000
