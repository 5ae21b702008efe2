"""An indexed layer is what an unpacked one is: the same tars give the same files or the same refusal."""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile
from pathlib import Path

import pytest

from trivet.base.error import TrivetError
from trivet.engine.snapshot.extract import extract
from trivet.engine.snapshot.index import index
from trivet.engine.snapshot.layer import drop_idle_whiteouts
from trivet.engine.snapshot.stream import Budget
from trivet.engine.snapshot.walk import changes
from trivet.kernel.mount import READ_ONLY, mount, unmount

pytestmark = pytest.mark.needs("root")

TYPES = (
    *[tarfile.REGTYPE] * 4,
    *[tarfile.DIRTYPE] * 4,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
)
NAMES = ("a", "b", "d", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh..wh.plnk", "..", "x" * 200)
WEIGHTS = (9, 9, 9, 1, 1, 1, 0.5, 0.1, 0.5)


def random_tar(seed: int) -> bytes:
    """Make a tar of a few entries whose names collide."""
    pick = random.Random(seed)
    buffer = io.BytesIO()
    files: list[str] = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(pick.randrange(1, 20)):
            parents = pick.choices(("d", "e", "a"), (20, 20, 1), k=pick.randrange(2))
            info = tarfile.TarInfo("/".join((*parents, *pick.choices(NAMES, WEIGHTS))))
            info.type = pick.choice(TYPES)
            info.linkname = "/".join(pick.choices(("a", "b", "c", "..", ""), k=pick.randrange(1, 4)))
            if info.islnk() and files:
                info.linkname = pick.choice(files)
            if info.isreg():
                files.append(info.name)
            info.mode, info.uid, info.gid = pick.randrange(0o10000), pick.randrange(70000), pick.randrange(70000)
            info.mtime, info.devmajor, info.devminor = pick.randrange(1 << 31), pick.randrange(3), pick.randrange(600)
            data = bytes([number]) * pick.choice((0, 1, 511, 4096, 5000, 9000)) if info.isreg() else b""
            info.size = len(data)
            if pick.random() < 0.3:
                info.pax_headers = {"SCHILY.xattr.user.k": "v" * number, "SCHILY.xattr.trusted.overlay.opaque": "y"}
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def shown(directory: Path) -> list[tuple[object, ...]]:
    """Everything about everything below a directory; times where the layer says them."""
    found: list[tuple[object, ...]] = []
    first: dict[int, bytes] = {}
    for node in changes(directory):
        state, place = node.state, directory / os.fsdecode(node.path)
        content = place.read_bytes() if stat.S_ISREG(state.st_mode) else b""
        target = node.link() if stat.S_ISLNK(state.st_mode) else b""
        links = 0 if stat.S_ISDIR(state.st_mode) else state.st_nlink
        said = state.st_mtime_ns if stat.S_ISREG(state.st_mode) or stat.S_ISLNK(state.st_mode) else 0
        about = state.st_mode, state.st_uid, state.st_gid, state.st_rdev, links, said
        found.append((node.path, first.setdefault(state.st_ino, node.path), about, content, target, node.xattrs()))
    return found


@pytest.mark.parametrize("batch", range(2))
def test_indexed_as_unpacked(tmp_path: Path, batch: int) -> None:
    """Whatever a layer holds, its EROFS file shows what unpacking makes of it, on a layer or without one below."""
    accepted = 0
    (tmp_path / "below" / "a" / "b").mkdir(parents=True)
    for seed in range(batch * 100, batch * 100 + 60):
        data = random_tar(seed)
        below = [tmp_path / "below"] if seed % 2 else []
        place, image, point = (tmp_path / f"{name}{seed}" for name in ("fs", "image", "point"))
        place.mkdir()
        point.mkdir()
        outcome: list[str] = []
        try:
            if extract(io.BytesIO(data), place, budget=Budget()):
                drop_idle_whiteouts(place, below)
        except TrivetError as error:
            outcome.append(error.message)
        try:
            index(io.BytesIO(data), image, budget=Budget(), below=below)
        except TrivetError as error:
            outcome.append(error.message)
        if outcome:  # both refuse it
            assert len(outcome) == 2, (seed, outcome)
            continue
        accepted += 1
        mount(image, point, "erofs", READ_ONLY)
        try:
            assert shown(point) == shown(place), seed
        finally:
            unmount(point)
    assert accepted > 10
