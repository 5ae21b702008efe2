"""Files from elsewhere: ADD of a URL or a Git repository, and contexts that are one.

Fetched by the engine, with its proxies. The same URL is fetched anew by every build, since only its
content says whether anything changed; with --checksum the cache knows the answer before.
"""

from __future__ import annotations

import email.utils
import hashlib
import posixpath
import re
from collections.abc import Mapping
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import aiohttp
import msgspec

from trivet.base.error import Unavailable
from trivet.base.thread import in_thread
from trivet.build import git
from trivet.build.archive import is_archive, unpacked
from trivet.build.error import BuildError
from trivet.build.placement import Choice
from trivet.build.session import Workplace
from trivet.build.spool import MOST_BYTES
from trivet.build.tree import Tree
from trivet.registry.certificate import is_local

PIECE = 1 << 20
CONNECT, SILENCE = 15.0, 60.0  # seconds
REDIRECTS = 10
_DIGEST = re.compile(r"(sha256|sha384|sha512):([0-9a-f]{64,128})")
_NAMED = re.compile(r"""filename\s*=\s*"?([^";]+)""", re.IGNORECASE)


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was fetched; `time` is Last-Modified in Unix time, 0 if the server doesn't say."""

    name: str
    time: int


class FetchFailed(Unavailable):
    """Something elsewhere that can't be had."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(f"cannot fetch {shown(url)}: {problem}")


def is_remote(source: str) -> bool:
    """Tell whether a source is a URL or a Git repository."""
    return source.startswith(("http://", "https://")) or git.is_repository(source)


def shown(url: str) -> str:
    """Spell a URL without the password it may hold."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", url)


async def add(
    session: Workplace, source: str, *, checksum: str = "", keep_git_dir: bool = False, unpack: bool = False
) -> Choice:
    """Get what a source of ADD names."""
    if git.is_repository(source):
        tree, top = await git.fetch(session, source, checksum=checksum, keep_git_dir=keep_git_dir)
        return Choice(posixpath.basename(top), top, tree, dated=True)
    with session.scratch_file() as file:
        fetched = await fetch(source, file, checksum, await _authorization(session, source))
        node = await in_thread(session.spool.absorb, file, fetched.time)
    if unpack and is_archive(session.spool, node):
        return Choice(fetched.name, "", unpacked(session.spool, node, shown(source)), dated=True)
    tree = Tree(shown(source))
    tree.add("file", msgspec.structs.replace(node, mode=0o600))
    return Choice(fetched.name, "file", tree, dated=True)


async def context(session: Workplace, url: str, *, keep_git_dir: bool = False) -> Tree:
    """Get a whole context: a Git repository, or a tar."""
    if git.is_repository(url):
        tree, top = await git.fetch(session, url, keep_git_dir=keep_git_dir)
        return tree.below(top)
    with session.scratch_file() as file:
        await fetch(url, file, "", await _authorization(session, url))
        node = await in_thread(session.spool.absorb, file, 0)
    if is_archive(session.spool, node):
        return unpacked(session.spool, node, shown(url))
    tree = Tree(shown(url))
    tree.add("Dockerfile", node)
    return tree


async def _authorization(session: Workplace, url: str) -> dict[str, str]:
    """Take the caller's secret for a host, as BuildKit names it; never over a wire that others can read."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_local(parts.netloc):
        return {}
    for name, form in ((f"HTTP_AUTH_HEADER_{parts.netloc}", "{}"), (f"HTTP_AUTH_TOKEN_{parts.netloc}", "Bearer {}")):
        if name in session.request.secrets:
            value = (await session.caller.secret(name)).decode("utf-8", "replace").strip()
            if not value.isprintable():
                raise BuildError(f"secret {name} holds characters that no header may have")
            return {"Authorization": form.format(value)}
    return {}


async def fetch(url: str, file: BinaryIO, checksum: str, headers: Mapping[str, str] | None = None) -> Fetched:
    """Fetch a URL into a file, and verify it. Raises `FetchFailed`, `BuildError` for a wrong checksum.

    `headers` go to that host only, along no redirect to another.
    """
    match = _DIGEST.fullmatch(checksum) if checksum else None
    if checksum and match is None:
        raise BuildError(f"--checksum={checksum[:80]} is not a digest", hint="write --checksum=sha256:…")
    state = hashlib.new(match[1] if match else "sha256")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False, trust_env=True) as client,
            client.get(url, max_redirects=REDIRECTS, headers={"User-Agent": "trivet", **(headers or {})}) as answer,
        ):
            if answer.status != 200:
                raise FetchFailed(url, f"it answers {answer.status} {answer.reason}")
            async for piece in answer.content.iter_chunked(PIECE):
                state.update(piece)
                await in_thread(file.write, piece)
                if file.tell() > MOST_BYTES:
                    raise FetchFailed(url, f"it is larger than {MOST_BYTES >> 30} GiB")
            fetched = Fetched(name=_name(answer), time=_time(answer))
    except (TimeoutError, aiohttp.ClientError, ValueError) as error:
        raise FetchFailed(url, str(error) or "it takes too long") from error
    if match and state.hexdigest() != match[2]:
        raise BuildError(f"{shown(url)} has {match[1]}:{state.hexdigest()}, not the --checksum {checksum}")
    return fetched


def _name(answer: aiohttp.ClientResponse) -> str:
    """Tell what the file is called: as the server says, or as the URL ends; never more than one name."""
    told = _NAMED.search(answer.headers.get("Content-Disposition", ""))
    name = told[1] if told else unquote(urlsplit(str(answer.url)).path)
    name = posixpath.basename(name.strip())
    return "" if name in (".", "..") or "\0" in name else name


def _time(answer: aiohttp.ClientResponse) -> int:
    try:
        return max(int(email.utils.parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()), 0)
    except (KeyError, ValueError):
        return 0
