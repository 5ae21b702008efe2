"""Layers are unpacked from the first bytes of their download on, and only what was verified gets a name."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import tarfile
import threading
from pathlib import Path

import pytest
from aiohttp import web
from tests.image.test_registry_hostile import MANIFEST_TYPE, Registry, descriptor
from tests.image.test_registry_server import eventually

from trivet.base.error import Corrupt
from trivet.engine.image.image import Images
from trivet.oci import digest as digests
from trivet.store.content import ContentStore
from trivet.store.growing import Abandoned
from trivet.store.partial import Partials

FIRST, SECOND = os.urandom(1 << 19), os.urandom(3 << 19)


def a_tar() -> bytes:
    """Make a tar of two files that don't compress."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in (("first", FIRST), ("second", SECOND)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


TAR = a_tar()
BLOB = gzip.compress(TAR, 1)
PART = len(BLOB) * 3 // 4


class Slow(Registry):
    """Sends most of the layer, and the rest when `go_on` is set: `rest`, or a new start if `again`."""

    def __init__(self, rest: bytes = BLOB[PART:], *, again: bool = False) -> None:
        super().__init__()
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digests.of(TAR)]}}
        self.config = json.dumps(config).encode()
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": descriptor(self.config, "application/vnd.oci.image.config.v1+json"),
                "layers": [descriptor(BLOB, "application/vnd.oci.image.layer.v1.tar+gzip")],
            }
        ).encode()
        self.rest, self.again = rest, again
        self.go_on = asyncio.Event()
        self.blob = self._slow

    async def _slow(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(BLOB)
        await response.prepare(request)
        if self.go_on.is_set():  # whatever range was asked for
            await response.write(BLOB)
            return response
        await response.write(BLOB[:PART])
        await self.go_on.wait()
        if self.again:
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(self.rest)
        return response


def drafts(images: Images) -> list[Path]:
    """Find the first file of layers that are being unpacked, where it is complete."""
    found = (images.content.root.parent / "overlay/making").glob("*/fs/first")
    return [path for path in found if path.stat().st_size == len(FIRST)]


def layers(images: Images) -> list[Path]:
    """Find the first file of unpacked layers."""
    return list((images.content.root.parent / "overlay/layer").glob("*/fs/first"))


def pull(images: Images, registry: Slow) -> None:
    """Pull; let the download go on when the first file is there, which must not have a name by then."""

    async def run() -> None:
        async with registry.running() as address:
            pulled = asyncio.create_task(images.pull(f"{address}/app:1", "linux/amd64"))
            await asyncio.to_thread(
                eventually, lambda: bool(drafts(images)), "nothing was unpacked before all was here"
            )
            assert layers(images) == []
            registry.go_on.set()
            await pulled

    asyncio.run(run())


def test_a_layer_is_unpacked_while_it_comes(images: Images) -> None:
    """A file is there as soon as its bytes are, long before the download has ended."""
    pull(images, Slow())
    (first,) = layers(images)
    assert first.read_bytes() == FIRST
    assert first.with_name("second").read_bytes() == SECOND


def test_a_download_that_begins_again_is_unpacked_again(images: Images) -> None:
    """Where the registry can't go on at the byte, the layer is unpacked from the new download."""
    pull(images, Slow(again=True))
    (first,) = layers(images)
    assert first.with_name("second").read_bytes() == SECOND
    assert drafts(images) == []


@pytest.mark.parametrize("rest", [BLOB[PART:-1] + b"!", bytes(len(BLOB) - PART)], ids=["last byte", "zeros"])
def test_what_turns_out_wrong_at_the_end_has_no_name(images: Images, rest: bytes) -> None:
    """Of a blob that isn't what it was to be nothing is kept, however much of it was unpacked."""
    with pytest.raises(Corrupt):
        pull(images, Slow(rest))
    eventually(lambda: not drafts(images), "a half-unpacked layer was left")
    assert layers(images) == []
    assert images.list() == []


def test_readers_of_a_growing_blob_see_its_end_only_when_it_is_good(tmp_path: Path) -> None:
    """Several readers get every byte of a complete blob, and an error of one that was given up."""
    content = ContentStore(tmp_path / "content")
    name, got = digests.of(BLOB), list[object]()

    def read() -> None:
        try:
            with content.follow(name) as file:
                whole = b""
                while piece := file.read(10_000):
                    whole += piece
                got.append(whole)
        except Abandoned as error:
            got.append(error)

    for complete in (False, True):
        got.clear()
        try:
            with Partials(content).ingest(name, len(BLOB)) as ingest:
                readers = [threading.Thread(target=read) for _ in range(3)]
                for reader in readers:
                    reader.start()
                eventually(lambda: content._arriving[name]._size >= ingest.size, "it did not grow")
                for at in range(ingest.size, len(BLOB) if complete else PART, 100_000):
                    ingest.write(BLOB[at : min(at + 100_000, len(BLOB) if complete else PART)])
                if not complete:
                    raise KeyError
        except KeyError:
            pass
        for reader in readers:
            reader.join(20)
        assert [type(each) for each in got] == [bytes if complete else Abandoned] * 3
    assert got == [BLOB] * 3
