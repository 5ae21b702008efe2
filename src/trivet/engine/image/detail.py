"""What people are shown of an image."""

from __future__ import annotations

from typing import Any

import msgspec

from trivet.client.schema_image import Image as Row
from trivet.client.schema_image import ImageDetail
from trivet.engine.image.model import ImageRecord
from trivet.oci import config as configs
from trivet.oci import digest as digests
from trivet.oci.config import Image
from trivet.store.content import ContentStore


def title(record: ImageRecord) -> str:
    """Name an image in a sentence."""
    return record.names[0].familiar if record.names else digests.short(record.id)


def names(record: ImageRecord) -> list[str]:
    """List an image's names as people write them."""
    return [name.familiar for name in record.names]


def view(record: ImageRecord) -> Row:
    """Show an image as a row of the list."""
    return Row(
        id=record.id,
        digest=record.digest,
        names=names(record),
        created=record.created,
        size=record.size,
        platform=record.platform,
        labels=record.labels,
        kind="disk" if record.disk else "files",
        virtual_size=record.disk.virtual_size if record.disk else 0,
    )


def inspect(content: ContentStore, record: ImageRecord, image: Image | None) -> ImageDetail:
    """Show an image with its configuration as stored; a disk image has no `image`."""
    raw: dict[str, Any] = msgspec.json.decode(content.read(record.id, limit=configs.LIMIT))
    layers = [{"digest": each.digest, "size": each.size, "diff_id": each.diff_id} for each in record.layers]
    return ImageDetail(
        id=record.id,
        digest=record.digest,
        names=names(record),
        created=record.created,
        size=record.size,
        platform=record.platform,
        layers=layers,
        config=raw,
        history=history(record, image),
        kind="disk" if record.disk else "files",
        virtual_size=record.disk.virtual_size if record.disk else 0,
    )


def history(record: ImageRecord, image: Image | None) -> list[dict[str, Any]]:
    """List an image's steps, newest first; a step has the digest and size of its layer, if it made one."""
    rows, layers = [], iter(record.layers)
    for step in (image.history if image else None) or ():
        layer = None if step.empty_layer else next(layers, None)
        rows.append(
            {
                "created": step.created or "",
                "created_by": step.created_by,
                "comment": step.comment,
                "size": layer.size if layer else 0,
                "digest": layer.digest if layer else "",
            }
        )
    rows += [_unexplained(layer.size, layer.digest) for layer in layers]
    return rows[::-1]


def _unexplained(size: int, digest: str) -> dict[str, Any]:
    return {"created": "", "created_by": "", "comment": "", "size": size, "digest": digest}
