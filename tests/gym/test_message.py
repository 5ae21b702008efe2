"""Row 11: what a configuration says is never taken for what the runtime says (CVE-2021-43784).

There a length of 16 bits ran over, so that the end of a long path was read as further attributes of the message.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

import msgspec
import pytest

from trivet.launch import task
from trivet.launch.failure import LaunchError, launch_error, parse_report
from trivet.launch.frame import Type
from trivet.launch.launcher import keep, move_up, pipe, start
from trivet.launch.operation import MAGIC, Exec, Hostname, NoNewPrivileges, Operation, Sysctl, Unshare, encode

NEWUTS = 0x04000000
LOOK = Exec(("/bin/grep", "NoNewPrivs", "/proc/self/status"), ("A=b",))
ROUND = 1 << 16


def plan(name: str) -> list[Operation]:
    """Give a plan in which the configuration's host name stands before the program loses rights."""
    return [Unshare(NEWUTS), Hostname(name, ""), NoNewPrivileges(), LOOK]


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


def careless(operations: list[Operation], *, whole: bool) -> bytes:
    """Encode without a check, with lengths of 16 bits: of strings, and with `whole` of operations, too."""
    body = MAGIC + number(len(operations))
    for operation in operations:
        if not isinstance(operation, Hostname):
            body += encode([operation])[len(MAGIC) + 4 :]
            continue
        texts = [text.encode("latin-1") for text in msgspec.structs.astuple(operation)]
        fields = b"".join(number(len(text) % ROUND) + text + b"\0" for text in texts)
        body += number(operation.code) + number(len(fields) % ROUND if whole else len(fields)) + fields
    return body


def forged() -> str:
    """Build a name whose end is a plan of its own: the program at once, and an operation that takes in all the rest."""
    visible = b"ours\0" + number(0) + b"\0"  # and the domain's name
    mine = encode([Exec(LOOK.argv)])[len(MAGIC) + 4 :]
    length = ROUND + len(b"ours")
    rest = length - len(visible) - len(mine) - 8 + len(b"\0" + number(0) + b"\0")  # behind the head of what takes it in
    rest += len(encode([NoNewPrivileges(), LOOK])) - len(MAGIC) - 4
    swallowing = number(Sysctl.code) + number(rest) + number(0) + b"\0" + number(rest - 10)
    return (visible + mine + swallowing).decode("latin-1").ljust(length, "x")


def carry_out(raw: bytes, operations: list[Operation]) -> bytes:
    """Give bytes to the launcher; what the program said. Raises `LaunchError`."""
    with ExitStack() as stack:
        reading, writing = pipe()
        report, theirs = pipe()
        for descriptor in (reading, report):
            keep(stack, descriptor)
        nothing = move_up(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        actions = [(os.POSIX_SPAWN_DUP2, fd, place) for place, fd in enumerate((nothing, writing, writing))]
        pid = start(raw, theirs, actions)
        for descriptor in (writing, theirs, nothing):
            os.close(descriptor)
        said, told = os.read(reading, 4096), bytearray(os.read(report, 4096))
        os.waitpid(pid, 0)
        frame = parse_report(told)
        if frame is not None and frame.type is Type.FAILED:
            raise launch_error(operations, frame.payload)
        return said


def test_row_11_the_end_of_a_long_name_is_not_obeyed() -> None:
    """With lengths that run over a name keeps its program's rights; as they are, it is refused, by two at once."""
    operations = plan(forged())
    assert carry_out(encode(plan("ours")), operations).split() == [b"NoNewPrivs:", b"1"]
    assert carry_out(careless(operations, whole=True), operations).split() == [b"NoNewPrivs:", b"0"]
    with pytest.raises(LaunchError, match="malformed fields of operation Hostname"):
        carry_out(careless(operations, whole=False), operations)
    with pytest.raises(ValueError, match="NUL"):
        encode(operations)


def test_row_11_a_long_name_stays_a_name() -> None:
    """Without a NUL it is carried whole, and the kernel refuses it."""
    with pytest.raises(LaunchError, match=r"host name x+: Invalid argument"):
        task.run(plan("x" * (ROUND + 4)))
