"""`--cache-from`: steps and kept directories that another engine has exported.

What a foreign cache says is believed as far as an image would be: a layer is verified against its digests, and
unpacked with the same limits, before the step counts as done. A cache that can't be had is told, and no reason to fail.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from trivet.base.error import Corrupt, TrivetError
from trivet.base.thread import in_thread
from trivet.build import cache_document
from trivet.build.cache_document import ANNOTATION, DOCUMENT, LIMIT, Document, Entry
from trivet.build.caller import Ask
from trivet.client.schema import Progress
from trivet.engine.image import artifact
from trivet.engine.image.commit import Draft
from trivet.engine.snapshot.extract import extract
from trivet.engine.snapshot.stream import Budget, LayerStream, decompressed
from trivet.oci import layout
from trivet.oci import manifest as manifests
from trivet.oci import reference as references
from trivet.oci.descriptor import Descriptor
from trivet.oci.manifest import Index, Manifest

if TYPE_CHECKING:
    from trivet.build.session import Workplace

Fetch = Callable[[Descriptor], Awaitable[None]]
"""Gets a blob into the content store."""


class Import:
    """One foreign cache."""

    def __init__(self, place: Workplace, document: Document, fetch: Fetch) -> None:
        self._place = place
        self._entries = {entry.key: entry for entry in document.entries}
        self._mounts = document.mounts
        self._fetch = fetch

    async def find(self, key: str, below: Draft) -> Entry | None:
        """Find a step's result, unpacked on top of `below`; None also where it turns out to be broken."""
        entry = self._entries.get(key)
        if entry is None or entry.layer is None:
            return entry
        layers = (*below.layers, entry.layer)
        try:
            await self._fetch(entry.layer.descriptor)
            pile = Draft(config=below.config, layers=layers)
            await in_thread(self._place.tools.images.unpack, pile)
        except TrivetError as error:
            _complain(self._place, f"a step of the imported cache is passed over: {error.message}")
            return None
        return entry

    async def mount(self, name: str, undo: ExitStack) -> Path | None:
        """Unpack a kept directory; None if this cache doesn't have it."""
        blob = self._mounts.get(name)
        if blob is None:
            return None
        try:
            await self._fetch(blob)
            place = Path(undo.enter_context(tempfile.TemporaryDirectory(dir=self._place.work, prefix="kept-")))
            await in_thread(self._unpack, blob, place / "d")
        except TrivetError as error:
            _complain(self._place, f"a directory of the imported cache is passed over: {error.message}")
            return None
        return place / "d"

    def _unpack(self, blob: Descriptor, directory: Path) -> None:
        directory.mkdir()
        budget = Budget()
        content = self._place.tools.images.content
        with content.open(blob.digest) as file, LayerStream(file, subject="kept directory", budget=budget) as stream:
            extract(stream, directory, whiteouts=False, budget=budget)


async def imports(place: Workplace) -> list[Import]:
    """Open all of the request's `cache_from`."""
    found = []
    for number, wish in enumerate(place.request.cache_from):
        try:
            if wish.kind == "local":
                found.append(await _local(place, number))
            else:
                found.append(await _registry(place, wish.place))
        except TrivetError as error:
            _complain(place, f"cannot import the build cache {wish.place}: {error.message}")
    return found


def _complain(place: Workplace, text: str) -> None:
    place.report(Progress(id="[cache]", status=text))


async def _registry(place: Workplace, name: str) -> Import:
    """Read the cache of a registry, kept open while the build runs."""
    reference = references.parse(name).tagged()
    images = place.tools.images
    opened = artifact.opened(images, reference, place.lease, place.report)
    found = await place.undo.enter_async_context(opened)
    place.report(Progress(id="[cache]", status=f"importing the cache of {reference.familiar}"))
    if found.manifest.config.media_type == DOCUMENT:
        raw: bytes | str = await found.read(found.manifest.config, LIMIT)
    else:
        raw = (found.manifest.annotations or {}).get(ANNOTATION, "")
        if not raw:
            raise Corrupt(f"{reference.familiar} holds no build cache")
    return Import(place, cache_document.parse(raw, subject=reference.familiar), found.blob)


async def _local(place: Workplace, number: int) -> Import:
    """Read a cache out of an OCI layout that the caller sends."""
    with place.scratch_file() as file:
        line, _ = await place.caller.ask(Ask.CONTEXT, f"cache:{number}")
        try:
            while data := await line.reader.read(1 << 20):
                await in_thread(file.write, data)
        finally:
            line.close()
        file.seek(0)
        what = "the build cache"
        tree = await in_thread(place.spool.take, decompressed(file, subject=what), what, anonymous=True)

    def read(path: str, limit: int) -> bytes:
        node = tree.nodes.get(path)
        if node is None or node.kind != "file" or node.size > limit:
            raise Corrupt(f"the build cache lacks {path}")
        return place.spool.read(node, limit)

    def keep(blob: Descriptor) -> None:
        place.lease.add(blob.digest)
        content = place.tools.images.content
        if not content.exists(blob.digest):
            content.add(read(str(layout.blob(blob.digest)), 8 << 30), blob.digest)

    async def fetch(blob: Descriptor) -> None:
        await in_thread(keep, blob)

    index = manifests.parse(read(layout.INDEX, manifests.LIMIT), subject="the build cache")
    if not isinstance(index, Index) or not index.manifests:
        raise Corrupt("the build cache has no index")
    top = index.manifests[0]
    manifest = manifests.parse(read(str(layout.blob(top.digest)), manifests.LIMIT), subject="the build cache")
    if not isinstance(manifest, Manifest) or manifest.config.media_type != DOCUMENT:
        raise Corrupt("that layout holds no build cache")
    raw = read(str(layout.blob(manifest.config.digest)), LIMIT)
    return Import(place, cache_document.parse(raw, subject="of a directory"), fetch)
