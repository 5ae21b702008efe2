"""Snapshots and clones of instances, as the doors see them; each under the instance's lock."""

from __future__ import annotations

import asyncio
import shutil

import msgspec

from trivet.base.error import Conflict
from trivet.client.schema_checkpoint import Checkpoint, CheckpointRequest, Cloned, CloneRequest, RevertRequest
from trivet.engine.checkpoint import clone, model, revert, take
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord

Found = list[model.CheckpointRecord]  # inside the class `list` is the method


class Checkpoints:
    """The snapshots of all instances of one engine; `ref` is an instance's name, id or a unique prefix of one."""

    def __init__(self, context: Context) -> None:
        self.context = context

    async def take(self, ref: str, wish: CheckpointRequest) -> Checkpoint:
        """Take a snapshot; with `end` the instance doesn't go on."""
        key = self.context.table.find(ref).id
        async with self.context.locks.hold(key, "taking a snapshot of"):
            made = await (self._end(key, wish.name) if wish.end else take.take(self.context, key, wish.name, end=False))
        return model.view(made, self.context.table.find(key))

    async def _end(self, key: str, name: str) -> model.CheckpointRecord:
        record = self.context.table.find(key)
        if record.request.auto_remove:
            raise Conflict(f"cannot checkpoint instance {record.name}: it is removed when it ends (--rm)")
        watch = self.context.watches.get(key)
        self._change(key, wanted=False)  # restart policies leave it alone
        try:
            made = await take.take(self.context, key, name, end=True)
        except BaseException:
            self._change(key, wanted=record.wanted)
            raise
        if watch is not None:
            await asyncio.shield(watch.ended)
        self._change(key, error=f"it was saved as snapshot {made.name}; trivet restore {record.name} lets it go on")
        return made

    def list(self, ref: str = "") -> list[Checkpoint]:
        """List the snapshots of one instance or of all, those of one instance together, oldest first."""
        records = [self.context.table.find(ref)] if ref else self.context.table.all()
        return [model.view(each, record) for record in records for each in self._of(record)]

    def _of(self, record: InstanceRecord) -> Found:
        return sorted(model.of_instance(self.context, record.id), key=lambda each: each.created)

    async def revert(self, ref: str, wish: RevertRequest) -> Checkpoint:
        """Let an instance be what a snapshot says."""
        key = self.context.table.find(ref).id
        async with self.context.locks.hold(key, "reverting"):
            record = await revert.revert(self.context, key, wish.name, idle=wish.idle)
            return model.view(model.find(self.context, record, record.checkpoint), record)

    async def remove(self, ref: str, name: str) -> None:
        """Remove a snapshot; those taken after it belong to the one before it."""
        record = self.context.table.find(ref)
        async with self.context.locks.hold(record.id, "removing a snapshot of"):
            gone = model.find(self.context, record, name)
            table = model.table(self.context)
            for each in self._of(record):
                if each.parent == gone.name:
                    table.update(each.id, msgspec.structs.replace(each, parent=gone.parent))
            if self.context.table.find(record.id).checkpoint == gone.name:
                self._change(record.id, checkpoint=gone.parent)
            table.delete(gone.id)
            place = model.home(self.context, record.id) / gone.id.rpartition("/")[2]
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)

    async def clone(self, ref: str, wish: CloneRequest) -> Cloned:
        """Make copies of an instance, running if it runs."""
        return await clone.clone(self.context, self.context.table.find(ref).id, wish)

    def _change(self, key: str, **fields: object) -> None:
        record = self.context.table.find(key)
        self.context.table.update(key, record.change(**fields))
