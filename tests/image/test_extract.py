"""Unpacking hostile layers: whatever a tar says, nothing outside its own directory changes."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivet.base.error import TrivetError
from trivet.engine.snapshot import tar
from trivet.engine.snapshot.extract import extract
from trivet.engine.snapshot.pack import Packer
from trivet.engine.snapshot.stream import BrokenCompression, Budget, BudgetExceeded, LayerStream
from trivet.engine.snapshot.tar import MalformedTar
from trivet.engine.snapshot.tree import MalformedLayer
from trivet.engine.snapshot.walk import changes
from trivet.kernel.overlay import OPAQUE
from trivet.store.content import StoreFull

pytestmark = pytest.mark.needs("root")

FILE, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = (
    tarfile.REGTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)


def entry(
    name: str, kind: bytes = FILE, data: bytes = b"x", link: str = "", **more: object
) -> tuple[tarfile.TarInfo, bytes]:
    """Describe one entry; `more` sets fields of TarInfo."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.mode = 0o755 if kind == DIRECTORY else 0o644
    for key, value in more.items():
        setattr(info, key, value)
    if kind == FILE:
        info.size = len(data)
    return info, data


Entries = Sequence[tuple[tarfile.TarInfo, bytes]]


def make_tar(entries: Entries, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return buffer.getvalue()


class Place:
    """A directory to unpack into, with a canary tree beside and above it."""

    def __init__(self, base: Path) -> None:
        self.root = base / "layer"
        self.root.mkdir()
        self.canary = base / "canary"
        (self.canary / "below").mkdir(parents=True)
        (self.canary / "file").write_text("alive")
        (self.canary / "below" / "file").write_text("alive")

    def unpack(self, data: bytes, budget: Budget | None = None) -> None:
        extract(io.BytesIO(data), self.root, budget=budget)

    def snapshot(self) -> dict[str, tuple[int, int, int, int, bytes]]:
        """Everything about the canary tree that an attack could change."""
        found = {}
        for path in sorted([self.canary, *self.canary.rglob("*")]):
            state = path.lstat()
            data = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (state.st_mode, state.st_uid, state.st_mtime_ns, state.st_nlink, data)
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A fresh directory and its canary."""
    return Place(tmp_path)


ESCAPES: dict[str, Callable[[str], Entries]] = {
    "dot dot": lambda out: [entry("../canary/file")],
    "dot dot in the middle": lambda out: [entry("a/../../canary/file")],
    "dot dot directory": lambda out: [entry("..", DIRECTORY)],
    "absolute": lambda out: [entry(f"{out}/file")],
    "absolute directory": lambda out: [entry(out, DIRECTORY, mode=0o777)],
    "through a relative link": lambda out: [entry("a", SYMLINK, link="../canary"), entry("a/file")],
    "through an absolute link": lambda out: [entry("a", SYMLINK, link=out), entry("a/file")],
    "through a link to a link": lambda out: [
        entry("a", SYMLINK, link="b"),
        entry("b", SYMLINK, link=out),
        entry("a/file"),
    ],
    "link as a directory entry": lambda out: [entry("a", SYMLINK, link=out), entry("a/", DIRECTORY, mode=0o777)],
    "file over a link": lambda out: [entry("a", SYMLINK, link=f"{out}/file"), entry("a")],
    "fifo over a link": lambda out: [entry("a", SYMLINK, link=f"{out}/file"), entry("a", FIFO)],
    "device below a link": lambda out: [
        entry("a", SYMLINK, link=out),
        entry("a/null", CHARACTER, devmajor=1, devminor=3),
    ],
    "hard link outside": lambda out: [entry("a", LINK, link="../canary/file"), entry("a", data=b"dead")],
    "hard link to an absolute path": lambda out: [entry("a", LINK, link=f"{out}/file"), entry("a", data=b"dead")],
    "hard link to a link": lambda out: [
        entry("a", SYMLINK, link=f"{out}/file"),
        entry("b", LINK, link="a"),
        entry("b", data=b"dead"),
    ],
    "hard link through a link": lambda out: [
        entry("a", SYMLINK, link=out),
        entry("b", LINK, link="a/file"),
        entry("b", data=b"dead"),
    ],
    "PAX path": lambda out: [entry("a", pax_headers={"path": "../canary/file"})],
    "PAX link path": lambda out: [entry("a", LINK, link="b", pax_headers={"linkpath": "../canary/file"})],
    "long name": lambda out: [entry("x/" * 60 + "../" * 70 + "canary/file")],
    "whiteout outside": lambda out: [entry("../canary/.wh.file")],
    "whiteout through a link": lambda out: [entry("a", SYMLINK, link=out), entry("a/.wh.file")],
    "opaque through a link": lambda out: [entry("a", SYMLINK, link=out), entry("a/.wh..wh..opq")],
    "whiteout of the parent": lambda out: [entry(".wh...")],
    "whiteout of itself": lambda out: [entry(".wh..")],
    "whiteout of nothing": lambda out: [entry(".wh.")],
    "below a whiteout": lambda out: [entry(".wh.a/b")],
    "link with many dot dots": lambda out: [entry("a", SYMLINK, link="../" * 50 + out[1:]), entry("a/file")],
    "links in a circle": lambda out: [entry("a", SYMLINK, link="b"), entry("b", SYMLINK, link="a"), entry("a/file")],
    "directory replaced by a link": lambda out: [
        entry("a", DIRECTORY),
        entry("a/file"),
        entry("a", SYMLINK, link=out),
        entry("a/file", data=b"dead"),
    ],
    "time of a directory that became a link": lambda out: [
        entry("a", DIRECTORY, mtime=1),
        entry("a", SYMLINK, link=out),
    ],
    "trailing slash on a file": lambda out: [entry("a", SYMLINK, link=out), entry("a/./")],
}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
@pytest.mark.parametrize("attack", ESCAPES)
def test_nothing_outside_changes(place: Place, attack: str, form: int) -> None:
    """Whether an attack is refused or confined, the tree beside the layer is as before."""
    before = place.snapshot()
    try:
        place.unpack(make_tar(ESCAPES[attack](str(place.canary)), form))
    except (MalformedLayer, BudgetExceeded):
        pass
    assert place.snapshot() == before


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """An extractor that trusts its input falls for many of these attacks."""
    fallen = []
    for number, (attack, entries) in enumerate(ESCAPES.items()):
        (tmp_path / str(number)).mkdir()
        place = Place(tmp_path / str(number))
        before = place.snapshot()
        if attack == "long name":
            continue  # would climb out of the test's own directory
        try:
            with tarfile.open(fileobj=io.BytesIO(make_tar(entries(str(place.canary))))) as archive:
                archive.extractall(place.root)
        except (OSError, tarfile.TarError, KeyError):
            pass
        if place.snapshot() != before:
            fallen.append(attack)
    assert len(fallen) >= 8, fallen


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry("a", CHARACTER)], "a device 0:0 would hide files"),
        ([entry("../a")], "leads out through"),
        ([entry("a"), entry("a/b")], "used as a directory"),
        ([entry("a", LINK, link="gone")], "hard link to b'gone', which the layer doesn't have"),
        ([entry("d", DIRECTORY), entry("a", LINK, link="d")], "which is no file"),
        ([entry(".wh.a"), entry("b", LINK, link="a")], "which is no file"),
        ([entry("a", uid=2**32 - 1)], "owner .* is out of range"),
        ([entry("a" * 256)], "File name too long"),
        ([entry("", FIFO)], "the root can only be a directory"),
        ([entry("a", b"M")], "its type is b'M'"),
    ],
)
def test_nonsense_is_refused_by_name(place: Place, entries: Entries, message: str) -> None:
    """An entry that makes no sense ends the unpacking with a sentence about it."""
    with pytest.raises(MalformedLayer, match=message):
        place.unpack(make_tar(entries))


def test_overlay_attributes_are_not_taken_over(place: Place) -> None:
    """Attributes that steer overlayfs are dropped, all others kept."""
    headers = {
        f"SCHILY.xattr.{name}": "y"
        for name in ("trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.metacopy", "user.mine")
    }
    place.unpack(make_tar([entry("a", pax_headers=headers), entry("d", DIRECTORY, pax_headers=headers)]))
    assert os.listxattr(place.root / "a") == ["user.mine"]
    assert os.listxattr(place.root / "d") == ["user.mine"]


def test_everything_about_a_file_is_kept(place: Place) -> None:
    """Owner, set-id bits, nanoseconds, capabilities, hard links, devices, and modes in spite of the umask."""
    capability = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
    headers = {"mtime": "1234567890.123456789", "SCHILY.xattr.security.capability": capability.decode("latin-1")}
    old = os.umask(0o077)
    try:
        place.unpack(
            make_tar(
                [
                    entry("deep/er/a", mode=0o6755, uid=1234, gid=3_000_000, pax_headers=headers),
                    entry("b", LINK, link="deep/er/a"),
                    entry("null", CHARACTER, devmajor=1, devminor=3, mode=0o666),
                    entry("pipe", FIFO),
                    entry("s", SYMLINK, link="/absolute/is/fine", uid=7),
                    entry("d", DIRECTORY, mode=0o1777, mtime=99),
                    entry("d/inside"),
                    entry("./", DIRECTORY, mode=0o700, uid=5),
                ]
            )
        )
    finally:
        os.umask(old)
    state = (place.root / "deep/er/a").stat()
    assert (state.st_mode & 0o7777, state.st_uid, state.st_gid) == (0o6755, 1234, 3_000_000)
    assert (state.st_mtime_ns, state.st_nlink) == (1234567890_123456789, 2)
    assert os.getxattr(place.root / "b", "security.capability") == capability
    assert (place.root / "deep").stat().st_mode & 0o777 == 0o755
    assert (place.root / "null").stat().st_rdev == os.makedev(1, 3)
    assert (place.root / "s").readlink() == Path("/absolute/is/fine")
    assert (place.root / "s").lstat().st_uid == 7
    assert ((place.root / "d").stat().st_mode & 0o7777, int((place.root / "d").stat().st_mtime)) == (0o1777, 99)
    assert (place.root.stat().st_mode & 0o7777, place.root.stat().st_uid) == (0o700, 5)


def test_whiteouts_become_overlays_own(place: Place) -> None:
    """`.wh.x` is a device 0:0, an opaque marker an attribute, in whatever order they come; files of the layer stay."""
    place.unpack(
        make_tar(
            [
                entry("a/.wh.gone"),
                entry("b/.wh..wh..opq", data=b""),
                entry("b/new"),
                entry("c/mine"),
                entry(".wh.c"),
                entry(".wh.d"),
                entry("d/mine"),
                entry(".wh.e"),
                entry("e", DIRECTORY),
                entry(".wh.f"),
                entry("f"),
                entry(".wh..wh.plnk", DIRECTORY),
                entry(".wh..wh.aufs"),
            ]
        )
    )
    gone = (place.root / "a/gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert [os.getxattr(place.root / name, OPAQUE) for name in "bcde"] == [b"y"] * 4
    assert (place.root / "b/new").is_file()
    assert (place.root / "c/mine").is_file()
    assert (place.root / "f").is_file()
    assert sorted(path.name for path in place.root.iterdir()) == list("abcdef")


def test_later_entries_replace_earlier_ones(place: Place) -> None:
    """A link becomes a file, a directory a file, a file a directory; links inside the root are followed."""
    place.unpack(
        make_tar(
            [
                entry("a", SYMLINK, link="/usr/bin"),
                entry("a"),
                entry("b/c/d"),
                entry("b", data=b"now a file"),
                entry("c"),
                entry("c", DIRECTORY),
                entry("c/d"),
                entry("usr/lib", DIRECTORY),
                entry("lib", SYMLINK, link="/usr/lib"),
                entry("lib/x"),
                entry("lib64", SYMLINK, link="../../lib"),
                entry("lib64/y"),
            ]
        )
    )
    assert (place.root / "a").is_file()
    assert (place.root / "b").read_bytes() == b"now a file"
    assert (place.root / "c/d").is_file()
    assert sorted(path.name for path in (place.root / "usr/lib").iterdir()) == ["x", "y"]


def test_sparse_files_in_all_encodings(place: Place, tmp_path: Path) -> None:
    """GNU tar's four ways to write a sparse file give the same file."""
    import subprocess

    source = tmp_path / "sparse"
    with source.open("wb") as file:
        for index in range(30):
            file.seek(index * 100_000)
            file.write(b"piece %d" % index)
        file.truncate(10_000_000)
    for options in ("--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"):
        form = ["--format=posix", options] if "version" in options else [options]
        command = ["tar", "-C", str(tmp_path), "--sparse", *form, "-cf", "-", "sparse"]
        place.unpack(subprocess.run(command, check=True, capture_output=True).stdout)
        assert (place.root / "sparse").read_bytes() == source.read_bytes()
        assert (place.root / "sparse").stat().st_blocks * 512 < 1_000_000
        (place.root / "sparse").unlink()


SMALL = Budget(entries=100, directories=50, depth=10, path=200, ratio=100, ratio_from=1 << 16)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry(f"f{index}", data=b"") for index in range(101)], "100 entries"),
        ([entry(f"d{index}", DIRECTORY) for index in range(51)], "50 directories"),
        ([entry("a/" * 11 + "f")], "depth"),
        ([entry("a" * 250)], "depth"),
    ],
)
def test_budgets_of_entries(place: Place, entries: Entries, message: str) -> None:
    """Too many entries or too deep a tree is stopped with the limit in the sentence."""
    with pytest.raises(BudgetExceeded, match=message):
        place.unpack(make_tar(entries), SMALL)


def test_sparse_file_of_exbibytes_is_refused(place: Place) -> None:
    """A file of 8 EiB that is all hole is too large."""
    headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(8 << 60)}
    with pytest.raises((MalformedTar, BudgetExceeded)):
        place.unpack(make_tar([entry("a", pax_headers=headers)]))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, bytes], ids=["gzip", "zstd", "plain"])
def test_compressions_are_told_apart(place: Place, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """gzip, zstd and plain layers are recognised by their bytes, and the tar is hashed on the way."""
    from trivet.oci import digest as digests

    data = make_tar([entry("a", data=os.urandom(3_000_000))])
    layer = tmp_path / "blob"
    layer.write_bytes(pack(data))
    with layer.open("rb") as file, LayerStream(file, subject="layer", budget=Budget()) as stream:
        extract(stream, place.root)
        assert stream.diff_id == digests.of(data)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_bombs_are_defused(place: Place, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """A layer that unpacks to far more than it weighs is stopped at the budget."""
    layer = tmp_path / "blob"
    layer.write_bytes(pack(make_tar([entry("a", data=bytes(50 << 20))])))
    steep = Budget(ratio=100, ratio_from=1 << 20)
    for budget, message in ((steep, "times its packed size"), (Budget(bytes=1 << 20), "bytes unpacked")):
        with (
            layer.open("rb") as file,
            LayerStream(file, subject="layer", budget=budget) as stream,
            pytest.raises(BudgetExceeded, match=message),
        ):
            extract(stream, place.root, budget=Budget())


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_cut_off_layers_are_corrupt(place: Place, tmp_path: Path, cut: float) -> None:
    """A layer that ends too early is corrupt, compressed or not."""
    data = make_tar([entry("a", data=os.urandom(200_000))])
    for raw in (gzip.compress(data), zstandard.compress(data), data):
        layer = tmp_path / "blob"
        layer.write_bytes(raw[: int(len(raw) * cut)])
        with (
            layer.open("rb") as file,
            LayerStream(file, subject="layer", budget=Budget()) as stream,
            pytest.raises((BrokenCompression, MalformedTar)),
        ):
            extract(stream, place.root)


@pytest.mark.parametrize(
    "rest", [b"nospaceshere=1\n", b"0 a=b\n", b"-9 a=b\n", b" a=b\n", b"99 a=b\n", b"4 a=b\n", b"\n"]
)
def test_extended_headers_end(rest: bytes) -> None:
    """A record of an extended header that has no length, or a wrong one, is refused and not read for ever."""
    records = tar._records(b"13 comment=c\n" + rest)
    assert next(records) == (b"comment", b"c")
    with pytest.raises(MalformedTar, match="extended header"):
        list(islice(records, 10))


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_tars_only_raise_our_errors(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes flipped anywhere in a tar give a tree or a clear error, never anything else."""
    place = Place(tmp_path_factory.mktemp("fuzz"))
    raw = bytearray(
        make_tar([entry("a/b", pax_headers={"comment": "c"}), entry("c", LINK, link="a/b"), entry("é" * 60)])
    )
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        _mend_checksums(raw)
    before = place.snapshot()
    try:
        place.unpack(bytes(raw))
    except TrivetError:
        pass
    assert place.snapshot() == before


def _mend_checksums(raw: bytearray) -> None:
    """Make every block's checksum right, so that damage gets past it."""
    for at in range(0, len(raw) - 511, 512):
        if raw[at + 257 : at + 262] == b"ustar":
            total = sum(raw[at : at + 512]) - sum(raw[at + 148 : at + 156]) + 256
            raw[at + 148 : at + 156] = b"%06o\0 " % total


def test_full_disk_names_the_file(place: Place, tmp_path: Path) -> None:
    """When the disk is full the error says so and which file it was."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(StoreFull, match="cannot write big/one: file size limit"):
            place.unpack(make_tar([entry("big/one", data=bytes(1 << 17))]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_packing_is_the_inverse(place: Place, tmp_path: Path) -> None:
    """A packed tree unpacks to the same tree and packs to the same bytes, long names, whiteouts and all."""
    place.unpack(
        make_tar(
            [
                entry("a/.wh.gone"),
                entry("b/.wh..wh..opq"),
                entry("ünïcödé/" + "n" * 120, mtime=12345, uid=3_000_000),
                entry("one", mode=0o4755, pax_headers={"SCHILY.xattr.user.mine": "ü"}),
                entry("two", LINK, link="one"),
                entry("s", SYMLINK, link="t" * 200),
                entry("null", CHARACTER, devmajor=1, devminor=3),
                entry("pipe", FIFO),
            ]
        )
    )
    first = packed(place.root)
    again = tmp_path / "again"
    again.mkdir()
    extract(io.BytesIO(first), again)
    assert packed(again) == first
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        names = archive.getnames()
    assert {"a/.wh.gone", "b/.wh..wh..opq", "ünïcödé/" + "n" * 120} <= set(names)
    assert packed(place.root, epoch=1000) != first


def packed(directory: Path, epoch: int | None = None) -> bytes:
    buffer = io.BytesIO()
    packer = Packer(buffer.write, epoch=epoch)
    packer.tree(changes(directory))
    packer.finish()
    return buffer.getvalue()
