"""Disk images, as the doors call them: each use case is one call and its event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from trivet.engine.disk import disk, model
from trivet.engine.image import detail
from trivet.engine.image.progress import Report, late, silent
from trivet.oci import reference as references

if TYPE_CHECKING:
    from trivet.engine.engine import Engine


class DiskImages:
    """One method per use case."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._disks = engine.context.images.disks

    def check(self, reference: str, form: str, platform: str = "", firmware: str = "") -> None:
        """Raise what is wrong with a wish to import, before a long upload."""
        disk.describe("", Path(), form, platform, firmware)
        if reference:
            references.parse(reference)

    def room(self) -> AbstractContextManager[Path]:
        """Give an empty directory for an upload, gone when the block ends."""
        return self._disks.room()

    async def import_(
        self, path: Path, name: str, form: str, reference: str, platform: str, firmware: str, report: Report = silent
    ) -> dict[str, Any]:
        """Make an image of a disk image file, called `name` in messages."""
        source = disk.describe(name, path, form, platform, firmware)
        record = await asyncio.to_thread(self._disks.import_, source, reference, late(report))
        shown = detail.title(record)
        self._engine.events.emit("image", "import", record.id, shown)
        return {"name": shown, "id": record.id, "digest": record.digest}

    async def export(self, ref: str, form: str, *, compress: bool) -> Callable[[BinaryIO], None]:
        """Prepare to write a disk image as a file; what is returned does it."""
        wanted = model.format_of(form)
        await asyncio.to_thread(self._disks.find, ref)
        return partial(self._disks.export, ref, wanted, compress=compress)
