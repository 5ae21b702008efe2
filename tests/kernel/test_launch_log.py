"""The log a monitor writes, and how it is read back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.launch import log
from trivet.launch.log import Record
from trivet.launch.operation import Exec, Monitor, Spawn, Wait
from trivet.launch.spawn import spawn

if TYPE_CHECKING:
    from tests.kernel.conftest import Launch, Listen

PATH = ("PATH=/bin",)
LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] .*", re.DOTALL)


def logged(launch: Launch, listen: Listen, script: str, path: Path, size: int = 0, files: int = 0) -> bytes:
    """Run a shell script to its end with this log; what it wrote to standard output."""
    directory = launch.directory()
    plan = [
        Monitor(str(directory), str(path), size, files),
        Spawn(),
        Wait(),
        Exec(("sh", "-c", script), ("PATH=/bin",)),
    ]
    channel = spawn(plan)
    channel.attach()
    channel.go()
    output: bytes = listen(channel).output
    return output


def content(path: Path, stream: str = "stdout") -> bytes:
    """What a log holds of one stream."""
    return b"".join(record.content for record in log.records(path) if record.stream == stream)


def test_each_line_has_time_stream_and_end(launch: Launch, listen: Listen, tmp_path: Path) -> None:
    """Lines are whole records in order; what lacks its newline is partial."""
    before = time.time_ns()
    logged(launch, listen, "echo one; echo two >&2; printf three", tmp_path / "log")
    assert all(LINE.fullmatch(line) for line in (tmp_path / "log").read_bytes().splitlines())
    found = list(log.records(tmp_path / "log"))
    assert sorted((r.stream, r.partial, r.content) for r in found) == [
        ("stderr", False, b"two\n"),
        ("stdout", False, b"one\n"),
        ("stdout", True, b"three"),
    ]
    assert all(before <= record.time <= time.time_ns() for record in found)


def test_binary_output_is_kept_exactly(launch: Launch, listen: Listen, tmp_path: Path) -> None:
    """A megabyte of random bytes is read back as it was written."""
    data = os.urandom(1 << 20)
    (tmp_path / "data").write_bytes(data)
    assert logged(launch, listen, f"cat {tmp_path}/data", tmp_path / "log") == data
    assert content(tmp_path / "log") == data


def test_a_long_line_is_cut_into_pieces(launch: Launch, listen: Listen, tmp_path: Path) -> None:
    """No record holds more than 16 KiB; together they are the line."""
    output = logged(launch, listen, "head -c 100000 /dev/zero | tr '\\0' x; echo", tmp_path / "log")
    pieces = list(log.records(tmp_path / "log"))
    assert max(len(record.content) for record in pieces) <= 16384
    assert [record.partial for record in pieces] == [True] * (len(pieces) - 1) + [False]
    assert content(tmp_path / "log") == output


def test_rotation_keeps_the_newest_files(launch: Launch, listen: Listen, tmp_path: Path) -> None:
    """No file grows beyond the limit, and the last lines are a gapless end of the output."""
    output = logged(launch, listen, "seq 1 20000", tmp_path / "log", size=65536, files=2)
    names = [path.name for path in log.files(tmp_path / "log")]
    assert names == ["log.2", "log.1", "log"]
    assert all(path.stat().st_size <= 65536 for path in tmp_path.iterdir())
    kept = content(tmp_path / "log")
    assert len(kept) > 10000
    assert output.endswith(kept)


def test_without_old_files_the_log_starts_over(launch: Launch, listen: Listen, tmp_path: Path) -> None:
    """With no old files kept there is one file within the limit."""
    logged(launch, listen, "seq 1 20000", tmp_path / "log", size=65536, files=0)
    assert [path.name for path in log.files(tmp_path / "log")] == ["log"]
    assert content(tmp_path / "log").endswith(b"20000\n")


def test_a_full_disk_does_not_stop_the_program(launch: Launch, listen: Listen, tmp_path: Path) -> None:
    """On a full disk output is dropped whole records at a time; when there is room again the loss is noted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        (disk / "filler").write_bytes(bytes(32768))
        script = f"seq 1 20000; sleep 0.1; rm {disk}/filler; echo after"
        output = logged(launch, listen, script, disk / "log")
        kept = (disk / "log").read_bytes()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    assert output.endswith(b"20000\nafter\n")
    assert re.search(rb"stderr F trivet: \d+ bytes of output were not logged\n", kept)
    assert kept.endswith(b"stdout F after\n")


def test_a_log_whose_directory_was_removed_stays_within_its_bound(
    launch: Launch, listen: Listen, short_path: Path
) -> None:
    """A file that has no name any more must not fill the disk."""
    place = short_path / "place"
    place.mkdir()
    directory = launch.directory()
    script = f"echo begun; while [ -d {place} ]; do sleep 0.01; done; head -c 8000000 /dev/zero"
    plan = [Monitor(str(directory), str(place / "log"), 65536, 1), Spawn(), Wait(), Exec(("sh", "-c", script), PATH)]
    channel = spawn(plan)
    channel.attach()
    channel.go()
    frame = channel.receive(20)
    assert frame is not None
    with (place / "log").open("rb") as log_file:
        shutil.rmtree(place)
        assert len(listen(channel).output) + len(frame.payload) >= 8000000
        assert 0 < os.fstat(log_file.fileno()).st_size <= 65536 + 20000


@pytest.mark.parametrize(
    "line", [b"", b"x", b"2026-11-26T01:11:26.123456789Z stdout", b"2026-13-45Tab:cd:ef.123456789Z stdout F x"]
)
def test_a_torn_line_is_no_record(line: bytes) -> None:
    """What a crash left half-written is skipped."""
    assert log.parse(line) is None


def test_a_record_is_read_as_documented() -> None:
    """The example of the documentation, to the nanosecond."""
    record = log.parse(b"2026-11-26T01:11:26.123456789Z stdout F some  content ")
    assert record == Record(1795655486123456789, "stdout", False, b"some  content \n")


Pieces = list[tuple[str, bool, bytes]]
PIECES = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.booleans(), st.from_regex(rb"[a-z]{0,4}", fullmatch=True))
)


@given(PIECES, st.integers(0, 8), st.lists(st.integers(0, 30), max_size=3))
def test_tail_gives_the_last_lines_with_all_their_pieces(pieces: Pieces, count: int, cuts: list[int]) -> None:
    """Whatever the pieces and files, tail gives the last lines by their ends, each whole."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "log"
        stamp = "2026-11-26T01:11:26.123456789Z"
        lines = [
            f"{stamp} {stream} {'P' if partial else 'F'} ".encode() + text + b"\n" for stream, partial, text in pieces
        ]
        parts = [0, *sorted(min(cut, len(lines)) for cut in cuts), len(lines)]
        for index, (start, end) in enumerate(pairwise(parts)):
            number = len(parts) - 2 - index
            (path if number == 0 else path.with_name(f"log.{number}")).write_bytes(b"".join(lines[start:end]))
        expected = expected_tail(pieces, count)
        found = [(r.stream, r.partial, r.content.removesuffix(b"\n")) for r in log.tail(path, count)]
    assert found == expected


def expected_tail(pieces: Pieces, count: int) -> Pieces:
    """Group pieces into lines, order the lines by their last piece, keep the last ones' pieces."""
    line_of: list[int] = []
    current: dict[str, int] = {}
    ends: dict[int, int] = {}
    for index, (stream, partial, _) in enumerate(pieces):
        line = current.setdefault(stream, index)
        line_of.append(line)
        ends[line] = index
        if not partial:
            del current[stream]
    last = set(sorted(ends, key=lambda line: ends[line])[len(ends) - min(count, len(ends)) :])
    return [piece for piece, line in zip(pieces, line_of, strict=True) if line in last]
