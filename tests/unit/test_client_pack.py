"""Contexts of builds as tars: what another reader makes of them."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivet.client.pack import PIECE, Packer, _headers
from trivet.engine.snapshot import tar

NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60).filter(
    lambda name: name not in (".", "..") and len(name.encode()) <= 200
)


def packed(top: Path, *names: str) -> bytes:
    sink = io.BytesIO()
    with Packer(sink) as packer:
        for name in names:
            packer.add(str(top / name), name)
    return sink.getvalue()


def read(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return list(archive)


@given(
    parts=st.lists(NAME, min_size=1, max_size=4),
    content=st.binary(max_size=3000),
    mode=st.integers(0, 0o777),
    mtime_ns=st.integers(0, 2**62),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_file_round_trips(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], content: bytes, mode: int, mtime_ns: int
) -> None:
    """Name, content, mode and time of any file arrive, by Python's reader and by the engine's; its owner is root."""
    top, name = tmp_path_factory.mktemp("context"), "/".join(parts)
    path = top / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    seconds = path.stat().st_mtime_ns // 10**9  # as far as the file system can tell it
    data = packed(top, name)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (entry,) = archive
        file = archive.extractfile(entry)
        assert file is not None
        assert (entry.name, file.read(), entry.mode) == (name, content, mode)
        assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", "")
    (mine,) = tar.Reader(io.BytesIO(data))
    assert (mine.name, mine.size, mine.mtime_ns) == (os.fsencode(name), len(content), seconds * 10**9)


def test_kinds_of_files(tmp_path: Path) -> None:
    """Directories, links and FIFOs arrive as they are, a further name of a file as a hard link, a socket not at all."""
    long = "l" * 150
    (tmp_path / "d").mkdir(mode=0o750)
    (tmp_path / "f").write_bytes(b"x" * (PIECE + 1))
    (tmp_path / "g").hardlink_to(tmp_path / "f")
    (tmp_path / "s").symlink_to(long)
    os.mkfifo(tmp_path / "p")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    (tmp_path / long).write_bytes(b"")
    raw = os.fsdecode(b"\xff")
    (tmp_path / raw).write_bytes(b"")
    entries = {entry.name: entry for entry in read(packed(tmp_path, "d", "f", "g", "s", "p", "socket", long, raw))}
    assert list(entries) == ["d", "f", "g", "s", "p", long, raw]
    assert entries["d"].isdir()
    assert entries["d"].mode == 0o750
    assert entries["f"].size == PIECE + 1
    assert (entries["g"].type, entries["g"].linkname) == (tarfile.LNKTYPE, "f")
    assert (entries["s"].type, entries["s"].linkname) == (tarfile.SYMTYPE, long)
    assert entries["p"].isfifo()


def test_what_does_not_fit_a_header(tmp_path: Path) -> None:
    """A size from 8 GiB and a time before 1970 are told by records, which other readers know."""
    (tmp_path / "f").write_bytes(b"")
    os.utime(tmp_path / "f", (-5, -5))
    header = _headers(b"f", b"0", (tmp_path / "f").stat(), size=10 << 30)
    with tarfile.open(fileobj=io.BytesIO(header)) as archive:
        first = archive.next()
    assert first is not None
    assert (first.size, first.mtime) == (10 << 30, -5)


def test_a_file_that_shrinks_is_an_error(tmp_path: Path) -> None:
    """What became shorter since it was looked at breaks the context off, instead of filling it up."""
    path = tmp_path / "f"
    path.write_bytes(b"x" * (2 * PIECE))

    class Cutting(io.BytesIO):
        def write(self, data: object, /) -> int:
            os.truncate(path, 10)
            return super().write(data)  # type: ignore[arg-type]

    with pytest.raises(OSError, match="it became shorter while it was read"), Packer(Cutting()) as packer:
        packer.add(str(path), "f")
