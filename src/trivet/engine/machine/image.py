"""What machines' disks begin as: disk images, like others in the store; Debian's are made from packages.

`debian/12` is the image `debian-disk:bookworm`, made from this machine's package sources when it is first wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trivet.engine.disk.disk import Source
from trivet.engine.disk.model import Firmware, Format
from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageNotFound, ImageRecord
from trivet.engine.image.progress import Report
from trivet.engine.machine import debian
from trivet.oci import platform as platforms


def named(reference: str) -> str:
    """Tell what the image of a reference is called in the store. Raises `UnknownDebian`."""
    suite = debian.suite_of(reference)
    return f"debian-disk:{suite}" if suite else reference


async def obtain(images: Images, reference: str, cache: Path, report: Report) -> ImageRecord:
    """Find a disk image, make it from packages, or fetch it. Raises `NotADisk`, and what making and fetching raise."""
    name, suite = named(reference), debian.suite_of(reference)
    try:
        return (await asyncio.to_thread(images.disks.find, name))[0]
    except ImageNotFound:
        pass
    if suite:
        return await asyncio.to_thread(_bootstrap, images, suite, name, cache, report)
    await images.pull(name, report=report)
    return (await asyncio.to_thread(images.disks.find, name))[0]


@contextmanager
def using(images: Images, reference: str) -> Iterator[tuple[ImageRecord | None, Path | None]]:
    """Hold the raw file of an image that is here; None and None where no image is wanted."""
    if not reference:
        yield None, None
        return
    with images.disks.using(named(reference)) as (record, path):
        yield record, path


def _bootstrap(images: Images, suite: str, name: str, cache: Path, report: Report) -> ImageRecord:
    file = debian.obtain(suite, cache, report)
    source = Source(path=file, name=name, format=Format.RAW, platform=platforms.host(), firmware=Firmware.ANY)
    return images.disks.import_(source, name, report)
