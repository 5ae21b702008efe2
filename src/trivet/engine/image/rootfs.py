"""One-layer images from the tar of a root file system: `import`, and what a bootstrap makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from trivet.base.clock import now_ns, rfc3339
from trivet.engine.image import change
from trivet.engine.image.commit import scratch
from trivet.engine.image.model import ImageRecord
from trivet.engine.image.progress import Meter, Report
from trivet.engine.snapshot import tar
from trivet.engine.snapshot.diff import LayerWriter
from trivet.engine.snapshot.stream import Readable, decompressed
from trivet.engine.snapshot.tar import MalformedTar, Reader
from trivet.oci import platform as platforms
from trivet.oci import reference as references
from trivet.oci.config import Config, History
from trivet.oci.layer import Layer
from trivet.store.content import ContentStore
from trivet.store.lease import Lease

if TYPE_CHECKING:
    from trivet.engine.image.image import Images


def import_(
    images: Images, file: Readable, reference: str, changes: Sequence[str], message: str, report: Report
) -> ImageRecord:
    """Make an image from a root file system's tar (plain, gzip or zstd). Raises `MalformedTar`, `MalformedChange`."""
    names = [str(references.parse(reference).tagged())] if reference else []
    config = Config()
    for text in changes:
        config = change.apply(config, text)
    meter = Meter(report, "import", 0)
    with images.leases.hold("importing a root file system") as lease:
        layer = store(
            images.content,
            decompressed(file, subject="the archive"),
            lease,
            lambda size: meter.count("importing", size),
        )
        history = History(created=rfc3339(now_ns()), created_by="trivet import", comment=message)
        draft = scratch(platforms.host()).with_layer(layer, history=history, config=config)
        return images.create(draft, names)


def store(content: ContentStore, source: Readable, lease: Lease, count: Callable[[int], None]) -> Layer:
    """Store an uncompressed tar as a gzip layer, checking on the way that it is a tar with something in it."""
    with content.ingest(lease=lease) as ingest:
        writer = LayerWriter(ingest)
        tee = _Tee(source, writer, count)
        reader = Reader(tee)
        if not sum(1 for _ in reader):
            raise MalformedTar("it is empty")
        reader.drain()
        writer.finish()
    return writer.layer()


class _Tee:
    """Passes on what is read to a layer writer."""

    def __init__(self, source: Readable, writer: LayerWriter, count: Callable[[int], None]) -> None:
        self._source = source
        self._writer = writer
        self._count = count
        self._size = 0

    def read(self, size: int = tar.CHUNK, /) -> bytes:
        piece = self._source.read(size)
        if piece:
            self._writer.write(piece)
            self._size += len(piece)
            self._count(self._size)
        return piece
