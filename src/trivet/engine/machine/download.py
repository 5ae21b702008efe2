"""Files from the web: fetched once, gone on with where they broke off, and believed by their checksum only.

CACHE/download/ALGORITHM-DIGEST.part   what has come so far; locked by who fetches it
CACHE/download/ALGORITHM-DIGEST        all of it, until the image store has it
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import aiohttp
import msgspec

from trivet.base.error import Corrupt, Exhausted, InvalidArgument, NotFound, Unavailable
from trivet.engine.image.progress import Meter, Report
from trivet.registry.answer import reason_of
from trivet.store.content import explaining_full

_LENGTHS = {"sha256": 64, "sha512": 128}
_BLOCK = 1 << 20
_ATTEMPTS = 5
_PAUSE = 0.5
_RESERVE = 256 << 20
_MISSING = (404, 410)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A file by its address and what it must hash to; `size` 0 is not known."""

    url: str
    algorithm: str
    digest: str
    size: int = 0

    @property
    def key(self) -> str:
        """Name its content."""
        return f"{self.algorithm}-{self.digest}"


def wanted(url: str, checksum: str) -> Wanted:
    """Read an address and `sha256:DIGEST` or `sha512:DIGEST`. Raises `InvalidArgument`."""
    algorithm, _, digest = checksum.strip().lower().partition(":")
    if not checksum:
        raise InvalidArgument(f"{url} can only be believed with a checksum", hint="--checksum sha256:...")
    if len(digest) != _LENGTHS.get(algorithm) or not re.fullmatch("[0-9a-f]+", digest):
        raise InvalidArgument(f"{checksum[:150]!r} is no checksum", hint="sha256: or sha512:, and its digits")
    return Wanted(url=address(url), algorithm=algorithm, digest=digest)


def address(url: str) -> str:
    """Refuse what is no address on the web. Raises `InvalidArgument`."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return url
    except ValueError:
        pass
    raise InvalidArgument(f"{url[:200]!r} is no address on the web")


def _session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    return aiohttp.ClientSession(timeout=timeout, trust_env=True)


async def small(url: str, limit: int) -> bytes:
    """Read a document of at most `limit` bytes. Raises `NotFound`, `Unavailable`, `Corrupt`."""
    try:
        async with _session() as session, session.get(url) as answer:
            _check(answer, url)
            content = bytearray()
            async for block in answer.content.iter_chunked(_BLOCK):
                content += block
                if len(content) > limit:
                    raise Corrupt(f"{url} is longer than {limit} bytes")
            return bytes(content)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"cannot read {url}: {reason_of(error)}") from error


@asynccontextmanager
async def fetched(file: Wanted, cache: Path, report: Report) -> AsyncIterator[Path]:
    """Have a file here while the block runs; it is gone afterwards if all went well, and else kept for the next time.

    Raises `NotFound`, `Unavailable`, `Exhausted`, and `Corrupt` for one that isn't what was said.
    """
    home = cache / "download"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    part, whole = home / f"{file.key}.part", home / file.key
    with await asyncio.to_thread(_locked, part):
        if not whole.exists():
            with explaining_full(part):
                await _fetch(file, part, report)
            part.rename(whole)
        yield whole
        whole.unlink(missing_ok=True)


def _locked(part: Path) -> BinaryIO:
    """Open the file once nobody else, perhaps another engine, fetches into it."""
    while True:
        lock = part.open("ab")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock.fileno()).st_nlink and part.exists():
            return lock
        lock.close()  # what we waited for was fetched, or wasn't what was asked for


async def _fetch(file: Wanted, part: Path, report: Report) -> None:
    async with _session() as session:
        for attempt in range(_ATTEMPTS):
            try:
                await _attempt(session, file, part, report)
                break
            except (aiohttp.ClientError, TimeoutError) as error:
                if attempt == _ATTEMPTS - 1:
                    raise Unavailable(
                        f"cannot fetch {file.url}: {reason_of(error)}", hint="what has come is kept: try again"
                    ) from error
                await asyncio.sleep(_PAUSE * 2**attempt)
    found = await asyncio.to_thread(_hash, part, file.algorithm)
    if found != file.digest:
        await asyncio.to_thread(part.unlink)
        raise Corrupt(f"{file.url} is not what was asked for: its {file.algorithm} is {found}")


async def _attempt(session: aiohttp.ClientSession, file: Wanted, part: Path, report: Report) -> None:
    """Ask for what is missing; begin again where the server can't go on."""
    have = await asyncio.to_thread(lambda: part.stat().st_size)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    async with session.get(file.url, headers=headers) as answer:
        if answer.status == 416:  # nothing is missing, or what is here is of another file
            if have != file.size and answer.headers.get("Content-Range", "").rpartition("/")[2] != str(have):
                await asyncio.to_thread(part.write_bytes, b"")
                raise aiohttp.ClientPayloadError("what had come was of another file")
            return
        _check(answer, file.url)
        have = have if answer.status == 206 else 0
        total = have + int(answer.headers.get("Content-Length") or 0)
        if file.size and total > file.size:
            raise Corrupt(f"{file.url} is larger than the {file.size} bytes that were said")
        free = shutil.disk_usage(part.parent).free
        if total - have > free - _RESERVE:
            raise Exhausted(f"cannot fetch {file.url}: {total - have} bytes do not fit on this disk")
        meter = Meter(report, file.url.rpartition("/")[2] or file.url, total)
        with part.open("r+b") as target:
            target.truncate(have)
            target.seek(have)
            async for block in answer.content.iter_chunked(_BLOCK):
                await asyncio.to_thread(_write, target, block)
                have += len(block)
                meter.count("downloading", have)
        if file.size and have > file.size:
            raise Corrupt(f"{file.url} is larger than the {file.size} bytes that were said")


def _write(target: BinaryIO, block: bytes) -> None:
    target.write(block)
    if shutil.disk_usage(target.name).free < _RESERVE:
        raise Exhausted(f"cannot fetch {Path(target.name).name}: it does not fit on this disk")


def _check(answer: aiohttp.ClientResponse, url: str) -> None:
    if answer.status in _MISSING:
        raise NotFound(f"there is no {url}")
    if answer.status not in (200, 206):
        raise Unavailable(f"cannot fetch {url}: the server answered {answer.status}")


def _hash(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
