"""Trees: hostile contexts, COPY's rules, archives, checksums; nothing touches the host's files."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import posixpath
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivet.build.archive import is_archive, unpacked
from trivet.build.chmod import parse_chmod
from trivet.build.error import BuildError, ContextError
from trivet.build.ignore import Ignore
from trivet.build.placement import (
    Dating,
    NoSource,
    Placement,
    Target,
    checksum,
    choose,
    newest,
    owned,
    place,
    target_of,
)
from trivet.build.spool import Spool
from trivet.build.tarball import write_tar
from trivet.build.tree import Node, Tree

Entry = tuple[str, str | bytes | None]


def make_tar(*entries: Entry, **fields: int) -> bytes:
    """Make a tar: (name, bytes) is a file, (name, str) a link, (name, None) a directory."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(info, field, value)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return raw.getvalue()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """A spool of its own."""
    with Spool(tmp_path) as spool:
        yield spool


def take(spool: Spool, *entries: Entry) -> Tree:
    """Read a tar of these entries as the build context."""
    return spool.take(io.BytesIO(make_tar(*entries)), "the build context")


def names(tree: Tree) -> list[str]:
    """List all paths but the top."""
    return [path for path, _ in tree.walk("") if path]


def copied(tree: Tree, *sources: str, to: str, cwd: str = "/", is_directory: bool = False) -> list[str]:
    """Tell which paths a COPY makes."""
    choices = [choice for source in sources for choice in choose(tree, source)]
    target = target_of(to, cwd, choices, is_directory=is_directory)
    return [posixpath.join(target.directory, each.path) for each in place(choices, target, Ignore([]), Dating(0))]


def test_contents(spool: Spool) -> None:
    """A tree knows kinds, modes and contents; parents that no entry names exist too."""
    tree = take(spool, ("a/b", b"hello"), ("l", "a/b"), ("d/", None))
    assert names(tree) == ["a", "a/b", "d", "l"]
    assert spool.read(tree.nodes["a/b"], 100) == b"hello"
    assert tree.nodes[tree.resolve("l")].size == 5


@pytest.mark.parametrize(
    ("entries", "path"),
    [
        ([("../../etc/passwd", b"x")], "etc/passwd"),
        ([("/etc/passwd", b"x")], "etc/passwd"),
        ([("a/../../b", b"x")], "b"),
        ([("l", "/etc"), ("l/passwd", b"x")], "etc/passwd"),
        ([("l", "../../.."), ("l/x", b"x")], "x"),
        ([("a", b"old"), ("a", b"x")], "a"),
        ([("a", "b"), ("a", b"x")], "a"),
    ],
)
def test_nothing_leaves_the_tree(spool: Spool, entries: list[Entry], path: str) -> None:
    """Dots, absolute names and links on the way end up inside; later entries win."""
    tree = take(spool, *entries)
    assert spool.read(tree.nodes[path], 9) == b"x"


def test_links_that_turn_in_circles(spool: Spool) -> None:
    """A circle of links is an error when it is followed."""
    tree = take(spool, ("a", "b"), ("b", "a"))
    with pytest.raises(ContextError, match="too many links"):
        choose(tree, "a/x")


def test_hostile_entries(spool: Spool) -> None:
    """Devices, broken headers and hard links to nothing are refused."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        device = tarfile.TarInfo("sda")
        device.type = tarfile.BLKTYPE
        archive.addfile(device)
    with pytest.raises(ContextError, match="sda"):
        spool.take(io.BytesIO(raw.getvalue()), "the build context")
    with pytest.raises(ContextError, match="cannot be read"):
        spool.take(io.BytesIO(b"x" * 2000), "the build context")
    with pytest.raises(ContextError, match="too deep"):
        take(spool, ("a/" * 300 + "b", b""))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=2000), cut=st.integers(0, 3000), flip=st.integers(0, 3000))
def test_fuzz(spool: Spool, raw: bytes, cut: int, flip: int) -> None:
    """Damaged tars are read or refused with a ContextError."""
    whole = bytearray(make_tar(("a", b"x" * 600), ("l", "a"), ("d", None)))
    whole[flip % len(whole)] ^= 0x55
    for data in (raw, bytes(whole[:cut]), bytes(whole)):
        try:
            spool.take(io.BytesIO(data), "the build context")
        except ContextError:
            pass


COPIES = [
    (["f"], "/x", False, ["/x"]),
    (["f"], "/x/", False, ["/x/f"]),
    (["f"], "/x", True, ["/x/f"]),
    (["f"], "x", False, ["/w/x"]),
    (["f"], ".", False, ["/w/f"]),
    (["f"], "../x", False, ["/x"]),
    (["f", "g"], "/x/", False, ["/x/f", "/x/g"]),
    (["d"], "/x", False, ["/x/e", "/x/e/h", "/x/i"]),
    (["d/"], "/x/", False, ["/x/e", "/x/e/h", "/x/i"]),
    (["."], "/", False, ["/d", "/d/e", "/d/e/h", "/d/i", "/f", "/g", "/lf", "/ld"]),
    (["?"], "/x/", False, ["/x/e", "/x/e/h", "/x/f", "/x/g", "/x/i"]),
    (["d/*"], "/x/", False, ["/x/h", "/x/i"]),
    (["lf"], "/x/", False, ["/x/lf"]),
    (["ld"], "/x", False, ["/x/e", "/x/e/h", "/x/i"]),
    (["ld/i"], "/x/", False, ["/x/i"]),
    (["../../f"], "/x/", False, ["/x/f"]),
]


@pytest.mark.parametrize(("sources", "target", "is_directory", "result"), COPIES)
def test_copy_rules(spool: Spool, sources: list[str], target: str, is_directory: bool, result: list[str]) -> None:
    """Sources go where Docker puts them."""
    tree = take(spool, ("f", b"1"), ("g", b"2"), ("d/e/h", b"3"), ("d/i", b"4"), ("lf", "f"), ("ld", "/d"))
    assert sorted(copied(tree, *sources, to=target, cwd="/w", is_directory=is_directory)) == sorted(result)


def test_missing_sources(spool: Spool) -> None:
    """A source that isn't there is named; outside of the context there is nothing."""
    tree = take(spool, ("f", b"1"), ("dangling", "nowhere"))
    for source in ("x", "x*", "f/x", "dangling"):
        with pytest.raises(NoSource, match=f"no {source[0]}"):
            choose(tree, source)
    with pytest.raises(NoSource) as caught:
        choose(tree, "../secret")
    assert caught.value.hint == "nothing outside of the build context can be copied"
    with pytest.raises(BuildError, match="never closed"):
        choose(tree, "[a")
    with pytest.raises(NoSource, match=r"no \\udcff in"):
        choose(tree, "\udcff")


def test_ignored_files_are_gone(spool: Spool) -> None:
    """What .dockerignore leaves out isn't in the tree, but directories of kept files are."""
    tree = take(spool, ("a/b/c", b""), ("a/b/d", b""), ("e", b""))
    assert names(tree.without(Ignore(["a", "!a/b/c", "e"]).excludes)) == ["a", "a/b", "a/b/c"]


def test_checksum(spool: Spool) -> None:
    """The checksum sees content, mode, owner, name and link target, and no time that isn't believed."""

    def of(*entries: Entry, **fields: int) -> str:
        tree = spool.take(io.BytesIO(make_tar(*entries, **fields)), "t")
        return checksum(place(choose(tree, "."), Target(directory="/", name=""), Ignore([]), Dating(7)))

    base = of(("a", b"x"), ("l", "a"), mtime=1)
    assert base == of(("l", "a"), ("a", b"x"), mtime=2)
    others = [of(("a", b"y"), ("l", "a")), of(("b", b"x"), ("l", "a")), of(("a", b"x"), ("l", "b"))]
    others += [of(("a", b"x"), ("l", "a"), mode=0o600), of(("a", b"x"), ("l", "a"), uid=5)]
    assert len({base, *others}) == 6


def test_owner_and_mode(spool: Spool) -> None:
    """--chown and --chmod change everything but the modes of links."""
    tree = take(spool, ("d/f", b""), ("d/l", "f"))
    placed = owned(
        place(choose(tree, "d"), Target(directory="/", name=""), Ignore([]), Dating(0)), (1, 2), parse_chmod("640")
    )
    assert [(each.node.uid, each.node.gid) for each in placed] == [(1, 2), (1, 2)]
    assert [oct(each.node.mode) for each in placed if each.node.kind == "file"] == ["0o640"]
    assert newest(placed) == 0


PACKERS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, bz2.compress, lzma.compress]


@pytest.mark.parametrize("pack", [*PACKERS, zstandard.ZstdCompressor().compress])
def test_archives(spool: Spool, pack: Callable[[bytes], bytes]) -> None:
    """Tars are found whatever they are packed with; other packed files are files."""
    inner = make_tar(("etc/../../x", b"1"), ("l", "/"), ("l/y", b"2"))
    tree = take(spool, ("a", pack(inner)), ("text", pack(b"hello " * 1000)), ("short", pack(inner)[:50]))
    assert is_archive(spool, tree.nodes["a"])
    assert not is_archive(spool, tree.nodes["text"])
    assert not is_archive(spool, tree.nodes["short"])
    assert names(unpacked(spool, tree.nodes["a"], "a")) == ["l", "x", "y"]


def test_truncated_archive(spool: Spool) -> None:
    """An archive that ends in the middle is an error, not half a copy."""
    packed = gzip.compress(make_tar(("a", os.urandom(100_000))))
    tree = take(spool, ("a.tgz", packed[: len(packed) // 2]))
    assert is_archive(spool, tree.nodes["a.tgz"])
    with pytest.raises(ContextError, match=r"a\.tgz"):
        unpacked(spool, tree.nodes["a.tgz"], "a.tgz")


def test_written_tar_is_read_again(spool: Spool) -> None:
    """What is written for the launcher holds the same names, kinds, owners and contents."""
    tree = take(spool, ("d/" + "n" * 200, b"x" * 1000), ("l", "t" * 150), ("d", None), ("ö\udcff", b""))
    tree.nodes["l"] = Node(kind="symlink", link="t" * 150, uid=1 << 31, mtime_ns=5 * 10**9)
    placed = [Placement(path, node) for path, node in tree.walk("") if path]
    reader, writer = os.pipe()

    def write() -> None:
        write_tar(placed, spool, writer)
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reader, "rb") as file:
        again = spool.take(file, "again", devices=True)
    thread.join()
    assert checksum(Placement(path, node) for path, node in again.walk("") if path) == checksum(placed)
