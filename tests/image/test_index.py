"""An indexed layer is what an unpacked one is: the same tars give the same files or the same refusal.

And indexed layers as one file system are what unpacked ones are under overlayfs.
"""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from trivet.base.error import TrivetError
from trivet.engine.snapshot import kept
from trivet.engine.snapshot.erofs import ErofsWriter, device_starts
from trivet.engine.snapshot.extract import extract
from trivet.engine.snapshot.index import index
from trivet.engine.snapshot.inode import OPAQUE, new_directory
from trivet.engine.snapshot.layer import drop_idle_whiteouts
from trivet.engine.snapshot.merge import move, stacked
from trivet.engine.snapshot.point import hide, show
from trivet.engine.snapshot.stream import Budget
from trivet.engine.snapshot.tree import MalformedLayer
from trivet.engine.snapshot.walk import changes, merged

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


def packed(data: bytes, home: Path, name: str, *, lowest: bool) -> Path:
    """Index a layer, and keep its tree beside its contents."""
    file = home / name
    kept.keep(file.with_suffix(".tree"), *index(io.BytesIO(data), file, budget=Budget(), lowest=lowest))
    return file


@contextmanager
def mounted(files: Sequence[Path], below: Sequence[Path], home: Path) -> Iterator[Path]:
    """Show packed layers, bottom first, as one file system made to lie on directories."""
    found = [kept.read(file.with_suffix(".tree")) for file in files]
    sizes = [blocks for _, blocks in found]
    for (tree, _), start in zip(found, device_starts(sizes), strict=True):
        move(tree, start)
    (home / "image").unlink(missing_ok=True)
    (home / "fs").mkdir(exist_ok=True)
    with ErofsWriter(home / "image", sizes) as writer:
        writer.finish(stacked([tree for tree, _ in found], below))
    show(home, files)
    try:
        yield home / "fs"
    finally:
        hide(home)


@pytest.mark.parametrize("batch", range(2))
def test_indexed_as_unpacked(tmp_path: Path, batch: int) -> None:
    """Whatever a layer holds, its EROFS file shows what unpacking makes of it, on a layer or without one below."""
    accepted = 0
    (tmp_path / "below" / "a" / "b").mkdir(parents=True)
    for seed in range(batch * 100, batch * 100 + 60):
        data = random_tar(seed)
        below = [tmp_path / "below"] if seed % 2 else []
        place, home = tmp_path / f"fs{seed}", tmp_path / f"home{seed}"
        place.mkdir()
        home.mkdir()
        outcome: list[str] = []
        try:
            if extract(io.BytesIO(data), place, budget=Budget()):
                drop_idle_whiteouts(place, below)
        except TrivetError as error:
            outcome.append(error.message)
        try:
            file = packed(data, home, "layer", lowest=not below)
        except TrivetError as error:
            outcome.append(error.message)
        if outcome:  # both refuse it
            assert len(outcome) == 2, (seed, outcome)
            continue
        accepted += 1
        if below:
            with mounted([file], below, home) as point:
                assert shown(point) == shown(place), seed
            continue
        file.rename(home / "image")
        (home / "fs").mkdir()
        show(home)
        try:
            assert shown(home / "fs") == shown(place), seed
        finally:
            hide(home)
    assert accepted > 10


def seen(directories: Sequence[Path]) -> list[tuple[object, ...]]:
    """What overlayfs shows of directories, topmost first: everything but how many names a file has, and our marks."""
    found: list[tuple[object, ...]] = []
    for node in merged(directories):
        state = node.state
        place = b"/proc/self/fd/%d/%s" % (node.parent, node.name)
        content = Path(os.fsdecode(place)).read_bytes() if stat.S_ISREG(state.st_mode) else b""
        target = node.link() if stat.S_ISLNK(state.st_mode) else b""
        said = state.st_mtime_ns if stat.S_ISREG(state.st_mode) or stat.S_ISLNK(state.st_mode) else 0
        about = state.st_mode, state.st_uid, state.st_gid, state.st_rdev, said
        marks = {key: value for key, value in node.xattrs().items() if key != OPAQUE}
        found.append((node.path, about, content, target, marks))
    return found


def test_stacked_as_overlayfs_does(tmp_path: Path) -> None:
    """Layers made one file system show what their directories show one on another, with directories below or none."""
    layers: list[tuple[bytes, Path]] = []
    for seed in range(1000, 1400):
        data, place = random_tar(seed), tmp_path / f"fs{seed}"
        place.mkdir()
        with suppress(TrivetError):
            extract(io.BytesIO(data), place, budget=Budget())
            layers.append((data, place))
    for start in range(0, len(layers) - 3, 2):
        chosen, home = layers[start : start + 4], tmp_path / f"home{start}"
        home.mkdir()
        low = start // 2 % 2  # that many directories stay what they are
        fs = [place for _, place in chosen]
        files = [
            packed(data, home, f"layer{number}", lowest=not number)
            for number, (data, _) in enumerate(chosen)
            if number >= low
        ]
        with mounted(files, fs[:low], home) as point:
            assert seen([point, *fs[:low]]) == seen(fs[::-1]), start
            states = [node.state for node in changes(point) if not stat.S_ISDIR(node.state.st_mode)]
            names = Counter(state.st_ino for state in states)
            assert [state.st_nlink for state in states] == [names[state.st_ino] for state in states], start
    assert len(layers) > 40


def test_a_tree_of_any_depth_is_kept(tmp_path: Path) -> None:
    """Directories ten thousand deep, which a layer can make through links, neither fail nor are lost."""
    root = deepest = new_directory()
    for _ in range(10_000):
        made = new_directory()
        assert deepest.children is not None
        deepest.children[b"d"] = made
        deepest = made
    kept.keep(tmp_path / "tree", root, 1)
    found, blocks = kept.read(tmp_path / "tree")
    depth = 0
    while found.children:
        found = found.children[b"d"]
        depth += 1
    assert (depth, blocks) == (10_000, 1)


def test_a_damaged_tree_is_refused(tmp_path: Path) -> None:
    """A tree file that was cut off or overwritten is named, and so is what to do."""
    kept.keep(tmp_path / "tree", new_directory(), 1)
    (tmp_path / "cut").write_bytes((tmp_path / "tree").read_bytes()[:-1])
    (tmp_path / "empty").write_bytes(b"\x92\x01\x90")
    (tmp_path / "wild").write_bytes(b"\x92\x01\x91\x93\x07\xc4\x01a\x09")
    for name in ("cut", "empty", "wild"):
        with pytest.raises(kept.BrokenTree, match=f"{name} is damaged"):
            kept.read(tmp_path / name)


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (b"\1\0\0\2" + bytes(16), True),
        (b"\0\0\0\3" + bytes(16) + b"\xe8\3\0\0", True),
        (b"\0\0\0\3" + bytes(16) + b"\xff\xff\xff\xff", False),
        (b"\0\0\0\1" + bytes(8), False),
        (b"\1\0\0\2" + bytes(20), False),
        (b"y", False),
    ],
)
def test_capabilities_that_make_no_sense(tmp_path: Path, value: bytes, good: bool) -> None:
    """A file's capabilities are refused where the kernel would, whether it is asked or not."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("file")
        info.pax_headers = {"SCHILY.xattr.security.capability": value.decode("utf-8", "surrogateescape")}
        archive.addfile(info)
    (tmp_path / "kernel").touch()
    with nullcontext() if good else pytest.raises(OSError, match="Invalid argument"):
        os.setxattr(tmp_path / "kernel", "security.capability", value)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    with nullcontext() if good else pytest.raises(MalformedLayer, match="Invalid argument"):
        extract(io.BytesIO(buffer.getvalue()), unpacked)
    with nullcontext() if good else pytest.raises(MalformedLayer, match="Invalid argument"):
        index(io.BytesIO(buffer.getvalue()), tmp_path / "indexed", budget=Budget())
