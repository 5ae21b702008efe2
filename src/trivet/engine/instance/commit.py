"""What an instance has become: as an image, as a tar, as a list of changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec

from trivet.base.clock import now_ns, rfc3339
from trivet.base.error import Unsupported
from trivet.client.schema import InstanceRequest
from trivet.engine.image import change
from trivet.engine.image import commit as layers
from trivet.engine.image.model import ImageRecord
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.still import standing_still
from trivet.oci.config import Config, History


async def commit(
    context: Context, key: str, name: str, *, changes: Sequence[str], author: str, message: str, pause: bool
) -> ImageRecord:
    """Make an image of an instance: its root as the next layer, its command and environment as the defaults.

    With `pause` a running instance stands still meanwhile, where its level can do that. Raises `NotReadable` at
    level vm, `MalformedChange`, and leaves nothing then.
    """
    record = context.table.find(key)
    if record.plan.hardware:
        raise Unsupported(
            f"cannot commit machine {record.name} as layers: its root is a disk",
            hint=f"trivet vm commit {record.name} IMAGE",
        )
    parent = context.images.draft(record.image_id)
    config = _defaults(parent.config.defaults, record.request)
    for text in changes:
        config = change.apply(config, text)
    created_by = " ".join(record.plan.program.argv)
    history = History(created=rfc3339(now_ns()), created_by=created_by, author=author, comment=message)
    async with AsyncExitStack() as stack:
        if pause:
            stack.enter_context(standing_still(context, [record]))
        return await asyncio.to_thread(_store, context, record, parent, history, config, name)


def _store(
    context: Context, record: InstanceRecord, parent: layers.Draft, history: History, config: Config, name: str
) -> ImageRecord:
    images = context.images
    with images.leases.hold(f"commit of instance {record.name}") as lease:
        draft = layers.commit(images, record.plan.root, parent, history=history, config=config, lease=lease)
        return images.create(draft, [name] if name else [])


def _defaults(image: Config, request: InstanceRequest) -> Config:
    """Fold what the instance was asked for into its image's defaults."""
    taken = request.entrypoint is not None
    env = {item.partition("=")[0]: item for item in (*(image.env or ()), *request.env)}
    return msgspec.structs.replace(
        image,
        env=tuple(env.values()) or None,
        entrypoint=tuple(request.entrypoint or ()) or None if taken else image.entrypoint,
        cmd=tuple(request.command) or (None if taken else image.cmd),
        user=request.user or image.user,
        working_dir=request.cwd or image.working_dir,
        labels={**(image.labels or {}), **request.labels} or None,
    )
