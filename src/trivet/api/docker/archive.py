"""Files of containers: `docker cp`, `export`, `diff`."""

from __future__ import annotations

import base64
import posixpath
import stat as modes
from pathlib import PurePosixPath
from typing import Any

import msgspec
from aiohttp import web

from trivet.api.docker.route import Route, answer, flag, name, nothing
from trivet.api.transfer import chunks, download
from trivet.base.error import InvalidArgument
from trivet.client.schema import PathStat
from trivet.engine.engine import Engine
from trivet.engine.snapshot.diff import Change

HEADER = "X-Docker-Container-Path-Stat"
CHUNK = 1 << 20
# Go's os.FileMode: type bits of its own, above the permissions
GO_MODE = {
    modes.S_IFDIR: 1 << 31,
    modes.S_IFLNK: 1 << 27,
    modes.S_IFBLK: 1 << 26,
    modes.S_IFIFO: 1 << 25,
    modes.S_IFSOCK: 1 << 24,
    modes.S_IFCHR: 1 << 26 | 1 << 21,
}
GO_BITS = {modes.S_ISUID: 1 << 23, modes.S_ISGID: 1 << 22, modes.S_ISVTX: 1 << 20}


def _header(found: PathStat, path: str) -> dict[str, str]:
    mode = found.mode & 0o777 | GO_MODE.get(modes.S_IFMT(found.mode), 0)
    mode |= sum(bit for flag_, bit in GO_BITS.items() if found.mode & flag_)
    link = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), found.link)) if found.link else ""
    shown = {"name": found.name, "size": found.size, "mode": mode, "mtime": found.modified, "linkTarget": link}
    return {HEADER: base64.b64encode(msgspec.json.encode(shown)).decode()}


def _path(request: web.Request) -> str:
    path = request.query.get("path", "")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    return path


async def stat(engine: Engine, request: web.Request) -> web.StreamResponse:
    return web.Response(
        headers=_header(await engine.instances.stat_path(name(request), _path(request)), _path(request))
    )


async def read(engine: Engine, request: web.Request) -> web.StreamResponse:
    ref, path = name(request), _path(request)
    found = await engine.instances.stat_path(ref, path)
    engine.instances.tell(engine.instances.key(ref), "archive-path")
    return await chunks(request, engine.instances.read_archive(ref, path), _header(found, path))


async def write(engine: Engine, request: web.Request) -> web.StreamResponse:
    ref, path = name(request), _path(request)
    if flag(request, "noOverwriteDirNonDir"):
        found = await engine.instances.stat_path(ref, path)
        if not modes.S_ISDIR(found.mode) and not modes.S_ISLNK(found.mode):
            raise InvalidArgument("extraction point is not a directory")
    await engine.instances.write_archive(ref, path, request.content.iter_chunked(CHUNK))
    engine.instances.tell(engine.instances.key(ref), "extract-to-dir")
    return nothing(200)


async def export(engine: Engine, request: web.Request) -> web.StreamResponse:
    key = engine.instances.key(name(request))
    engine.instances.tell(key, "export")
    return await download(request, lambda file: engine.instances.export(key, file.write))


POINTS = frozenset(
    "/etc/hostname /etc/hosts /etc/resolv.conf /etc/mtab /dev /dev/console /dev/pts /dev/shm /proc /sys".split()
)
"""Mount points that an image may lack; Docker makes them in a layer below the container's own."""


def _without_points(found: list[Change]) -> list[Change]:
    """Leave out mount points made for the container, and directories that changed only by that."""
    made = {each.path for each in found if each.kind == "added" and each.path in POINTS}
    above = {str(parent) for path in made for parent in PurePosixPath(path).parents}
    kept = [each for each in found if each.path not in made]
    touched = {str(parent) for each in kept if each.path not in above for parent in PurePosixPath(each.path).parents}
    return [each for each in kept if each.kind != "changed" or each.path not in above or each.path in touched]


async def changes(engine: Engine, request: web.Request) -> web.StreamResponse:
    kinds = {"changed": 0, "added": 1, "deleted": 2}
    found = _without_points(await engine.instances.changes(name(request)))
    shown: list[dict[str, Any]] = [{"Path": each.path, "Kind": kinds[each.kind]} for each in found]
    return answer(shown or None)


ONE = "/containers/{name}"
ROUTES = (
    Route("HEAD", ONE + "/archive", stat, ("path",)),
    Route("GET", ONE + "/archive", read, ("path",)),
    Route("PUT", ONE + "/archive", write, ("path", "noOverwriteDirNonDir", "copyUIDGID")),
    Route("GET", ONE + "/export", export),
    Route("GET", ONE + "/changes", changes),
)
