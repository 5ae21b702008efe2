"""Files that commands write: what is in them, and what isn't."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trivet.cli.archive import write_sparsely

PIECE = st.sampled_from([b"x", b"\0", bytes(16383), bytes(16384), bytes(50_000), b"a" * 20_000])


@given(st.lists(st.lists(PIECE, max_size=6).map(b"".join), max_size=6))
def test_what_is_read_back_is_what_was_written(chunks: list[bytes]) -> None:
    """However zeros and others are mixed and cut, also at the end."""
    descriptor = os.memfd_create("written", os.MFD_CLOEXEC)
    try:
        for chunk in chunks:
            write_sparsely(descriptor, chunk)
        os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))
        whole = b"".join(chunks)
        assert os.pread(descriptor, len(whole) + 1, 0) == whole
    finally:
        os.close(descriptor)


def test_zeros_take_no_room(tmp_path: Path) -> None:
    """A disk that is empty but for a few bytes takes a few blocks."""
    path = tmp_path / "disk"
    with path.open("xb", buffering=0) as file:
        for chunk in (bytes(1 << 20), b"content".ljust(1 << 20, b"\0"), bytes(1 << 20)):
            write_sparsely(file.fileno(), chunk)
        file.truncate(os.lseek(file.fileno(), 0, os.SEEK_CUR))
    assert path.stat().st_size == 3 << 20
    assert path.stat().st_blocks * 512 <= 64 << 10
