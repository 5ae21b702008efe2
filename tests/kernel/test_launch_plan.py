"""Plans on the wire: both sides agree, and a hostile plan is refused before anything is done."""

from __future__ import annotations

import os
import subprocess
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivet.launch.frame import HEADER, Type
from trivet.launch.launcher import BINARY
from trivet.launch.operation import (
    MAGIC,
    OPERATIONS,
    Bind,
    Exec,
    Mount,
    Operation,
    Rlimit,
    User,
    Wait,
    WriteFile,
    encode,
    signature,
)

HARMLESS = Wait()  # fails in task mode, so that nothing behind it is ever carried out
SAMPLE = [
    HARMLESS,
    Mount("tmpfs", "", "/nowhere", 0, ("size=1k", "nr_inodes=2")),
    Bind("/nowhere", "/nowhere"),
    WriteFile("/nowhere/file", b"\0\xff"),
    Rlimit(7, 1, -1),
    User("1:2", ("3",)),
    Exec(("true",), ("A=b",)),
]
FAILED = 125


def launch_bytes(plan: bytes) -> tuple[int, int, bytes]:
    """Give a task these bytes as its plan: exit status, index and text of the failure."""
    with tempfile.TemporaryFile() as file:
        file.write(plan)
        file.flush()
        reading, writing = os.pipe()
        script = f'exec "$0" 3<&{file.fileno()} 4>&{writing} 0</dev/null'
        try:
            done = subprocess.run(
                ["bash", "-c", script, BINARY], pass_fds=(file.fileno(), writing), capture_output=True, timeout=20
            )
        finally:
            os.close(writing)
        report = os.read(reading, 4096)
        os.close(reading)
    kind, _, _, length = HEADER.unpack_from(report)
    assert kind == Type.FAILED
    assert len(report) == HEADER.size + length
    return done.returncode, int.from_bytes(report[8:12], "little"), report[16:]


def test_both_sides_know_the_same_operations() -> None:
    """The C table lists exactly Python's operations, with the same codes and fields."""
    text = subprocess.run([BINARY, "--operations"], capture_output=True, text=True, check=True).stdout
    known = {tuple(line.split(" ", 2)) for line in text.splitlines()}
    assert known == {(str(code), kind.__name__, signature(kind)) for code, kind in OPERATIONS.items()}


def test_a_sound_plan_passes_the_check() -> None:
    """Every field of a valid plan is accepted: the failure is the operation's own."""
    code, index, text = launch_bytes(encode(SAMPLE))
    assert (code, index, text) == (FAILED, 0, b"Wait needs a monitor")


@pytest.mark.parametrize("size", range(0, len(encode(SAMPLE)), 3))
def test_a_truncated_plan_is_refused(size: int) -> None:
    """A plan cut off anywhere is refused whole."""
    code, _, text = launch_bytes(encode(SAMPLE)[:size])
    assert code == FAILED
    assert text != b"Wait needs a monitor"


@pytest.mark.parametrize(
    "plan",
    [
        b"TRVPLAN2" + bytes(4),
        MAGIC + b"\xff\xff\xff\xff",
        MAGIC + b"\1\0\0\0" + b"\x0b\0\0\0" + b"\xff\xff\xff\xff" + bytes(8),
        MAGIC + b"\1\0\0\0" + b"\xff\0\0\0" + bytes(4),
        MAGIC + b"\1\0\0\0" + b"\x20\0\0\0" + b"\x01\0\0\0" + b"x",
        MAGIC + b"\1\0\0\0" + b"\x15\0\0\0" + b"\x09\0\0\0" + b"\x04\0\0\0/tmpX",
        MAGIC + b"\1\0\0\0" + b"\x15\0\0\0" + b"\x04\0\0\0" + b"\xff\xff\xff\xff",
        MAGIC + b"\1\0\0\0" + b"\x3e\0\0\0" + b"\x08\0\0\0" + b"\xff\xff\xff\xff" + bytes(4),
        encode([Wait()]) + b"x",
    ],
)
def test_wrong_lengths_and_codes_are_refused(plan: bytes) -> None:
    """Wrong magic, huge counts and lengths, unknown codes, missing terminators, trailing bytes: all refused."""
    code, _, text = launch_bytes(plan)
    assert code == FAILED
    assert any(word in text for word in (b"plan", b"operation"))


def test_a_second_spawn_is_refused() -> None:
    """The launcher makes one child."""
    from trivet.launch.operation import Spawn

    code, index, text = launch_bytes(encode([Spawn(), Spawn()]))
    assert (code, index, text) == (FAILED, 1, b"a plan can hold only one Spawn")


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_mutated_plan_never_crashes_the_launcher(data: st.DataObject) -> None:
    """Whatever bytes follow a valid beginning, the launcher ends with a report, not with a signal."""
    plan = bytearray(encode(SAMPLE))
    start = len(encode([HARMLESS]))
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(start, len(plan) - 1))
        match data.draw(st.sampled_from(["set", "delete", "insert"])):
            case "set":
                plan[position] = data.draw(st.integers(0, 255))
            case "delete":
                del plan[position : position + data.draw(st.integers(1, 8))]
            case _:
                plan[position:position] = data.draw(st.binary(max_size=8))
        if len(plan) <= start:
            break
    code, _, _ = launch_bytes(bytes(plan))
    assert code == FAILED


def test_a_string_with_a_nul_byte_never_leaves_python() -> None:
    """A path can't be cut short by a NUL byte."""
    operations: list[Operation] = [WriteFile("/etc\0/x", b"")]
    with pytest.raises(ValueError, match="NUL"):
        encode(operations)
