"""What machines' disks begin as: disk images, like others in the store; Debian's are made from packages.

`debian/12` is the image `debian-disk:bookworm`, made from this machine's package sources when it is first wanted. What
comes from an address or a catalogue is named after its checksum, so that it is fetched once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from trivet.base.error import InvalidArgument
from trivet.client.schema_machine import ObtainRequest
from trivet.engine.disk.disk import Source, describe
from trivet.engine.disk.model import Firmware, Format
from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageNotFound, ImageRecord
from trivet.engine.image.progress import Report
from trivet.engine.machine import catalogue, debian, download
from trivet.engine.machine.download import Wanted
from trivet.oci import platform as platforms


def named(reference: str) -> str:
    """Tell what the image of a reference is called in the store. Raises `UnknownDebian`."""
    suite = debian.suite_of(reference)
    return f"debian-disk:{suite}" if suite else reference


_WEB = ("https://", "http://")
_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
_LONGEST = 120


async def obtain(images: Images, wish: ObtainRequest, cache: Path, report: Report) -> tuple[str, ImageRecord]:
    """Find a disk image, make it from packages, or fetch it; its name and it.

    Raises `NotADisk`, and what making and fetching raise.
    """
    if wish.reference.startswith(catalogue.PREFIX):
        if not wish.catalogue:
            raise InvalidArgument(f"{wish.reference} is of which catalogue?", hint="--catalogue URL")
        found = await catalogue.find(wish.catalogue, wish.reference.removeprefix(catalogue.PREFIX), wish.keyring)
        return await _from_web(images, found.file, found.format, cache, report)
    if wish.reference.startswith(_WEB):
        wanted = download.wanted(wish.reference, wish.checksum)
        return await _from_web(images, wanted, wish.format or _suffix(wish.reference), cache, report)
    return named(wish.reference), await _obtain(images, wish.reference, cache, report)


async def _from_web(images: Images, file: Wanted, form: str, cache: Path, report: Report) -> tuple[str, ImageRecord]:
    stem = re.sub(r"[^a-z0-9]+", "-", PurePosixPath(urlsplit(file.url).path).stem.lower()).strip("-")[:60] or "disk"
    name = f"{stem}:{file.key[:_LONGEST]}"
    async with _locks.setdefault(name, asyncio.Lock()):  # who else wants it waits, and finds it
        try:
            return name, (await asyncio.to_thread(images.disks.find, name))[0]
        except ImageNotFound:
            pass
        describe(stem, cache, form, "", "")  # refuses what is no format before anything is fetched
        async with download.fetched(file, cache, report) as path:
            source = describe(stem, path, form, "", "")
            return name, await asyncio.to_thread(images.disks.import_, source, name, report)


def _suffix(url: str) -> str:
    """Tell the format by the name. Raises `InvalidArgument`."""
    suffix = PurePosixPath(urlsplit(url).path).suffix.lower().removeprefix(".")
    if suffix not in list(Format):
        raise InvalidArgument(f"{url}: its name does not say what it is", hint="--format raw, qcow2, ... says it")
    return suffix


async def _obtain(images: Images, reference: str, cache: Path, report: Report) -> ImageRecord:
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
