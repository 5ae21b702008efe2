"""Disk images, as the doors call them: each use case is one call and its event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from trivet.engine.disk import disk, model
from trivet.engine.image import detail
from trivet.engine.image.model import ImageRecord
from trivet.engine.image.progress import Report, late, silent
from trivet.oci import reference as references

if TYPE_CHECKING:
    from trivet.engine.engine import Engine

OVA = "ova"


class DiskImages:
    """One method per use case."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._disks = engine.context.images.disks

    def check(self, reference: str, form: str, platform: str = "", firmware: str = "") -> None:
        """Raise what is wrong with a wish to import, before a long upload."""
        disk.describe("", Path(), "raw" if form == OVA else form, platform, firmware)
        if reference:
            references.parse(reference)

    def room(self) -> AbstractContextManager[Path]:
        """Give an empty directory for an upload, gone when the block ends."""
        return self._disks.room()

    async def import_(
        self, path: Path, name: str, form: str, reference: str, platform: str, firmware: str, report: Report = silent
    ) -> dict[str, Any]:
        """Make an image of a disk image file, called `name` in messages."""
        if form == OVA:
            return await self._appliance(path, name, reference, platform, firmware, report)
        source = disk.describe(name, path, form, platform, firmware)
        record = await asyncio.to_thread(self._disks.import_, source, reference, late(report))
        return self._made(record, reference)

    async def _appliance(
        self, path: Path, name: str, reference: str, platform: str, firmware: str, report: Report
    ) -> dict[str, Any]:
        """Make images of the disks of an OVA."""
        from trivet.engine.disk import appliance  # with it come tarfile and XML, which few need

        told = disk.describe(name, path, "raw", platform, firmware)
        wish = appliance.Wish(
            path=path, name=told.name, platform=told.platform, firmware=told.firmware, reference=reference
        )
        machine, records = await asyncio.to_thread(appliance.import_, self._disks, wish, late(report))
        made = [self._made(record, appliance.name_of(reference, number)) for number, record in enumerate(records, 1)]
        first = made[0] if made else {"name": "", "id": "", "digest": ""}
        return {**first, "disks": made, "machine": msgspec.to_builtins(machine)}

    def _made(self, record: ImageRecord, reference: str) -> dict[str, Any]:
        shown = references.parse(reference).tagged().familiar if reference else detail.title(record)
        self._engine.events.emit("image", "import", record.id, shown)
        return {"name": shown, "id": record.id, "digest": record.digest}

    async def export(self, ref: str, form: str, *, compress: bool) -> Callable[[BinaryIO], None]:
        """Prepare to write a disk image as a file; what is returned does it."""
        await asyncio.to_thread(self._disks.find, ref)
        if form == OVA:
            from trivet.engine.disk import appliance

            return partial(appliance.export, self._disks, ref)
        wanted = model.format_of(form)
        return partial(self._disks.export, ref, wanted, compress=compress)
