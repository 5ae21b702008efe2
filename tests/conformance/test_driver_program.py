"""The contract, part one: a program, what it is given and what comes back."""

from __future__ import annotations

import hashlib

import pytest
from tests.conformance.harness import Harness

from trivet.base.error import Denied, InvalidArgument, NotFound
from trivet.isolation.failure import ProgramNotExecutable, ProgramNotFound

ALL_BYTES = bytes(range(256))


@pytest.mark.parametrize("code", [0, 1, 3, 125, 255])
def test_exit_code(instance: Harness, code: int) -> None:
    """The program's exit code comes back unchanged."""
    assert instance.shell(f"exit {code}").code == code


def test_death_by_signal(instance: Harness) -> None:
    """A program that died of a signal exits with 128 and the signal's number."""
    session = instance.start("sh", "-c", "echo up; exec sleep 60")
    session.until(b"up")
    instance.driver.signal(instance.plan, 9)
    result = session.wait()
    assert (result.code, result.exit.signal) == (137, 9)


def test_output_is_separated(instance: Harness) -> None:
    """Standard output and standard error stay apart."""
    result = instance.shell("echo out; echo err >&2")
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")


def test_input_reaches_the_program(instance: Harness) -> None:
    """Input reaches the program, and its end does."""
    session = instance.start("cat", stdin=True)
    session.channel.write(b"hello\n")
    session.until(b"hello\n")
    session.channel.write(b"more")
    session.channel.end_input()
    assert session.wait().stdout == b"hello\nmore"


def test_no_input_is_empty_input(instance: Harness) -> None:
    """Without standard input the program reads the end of a file at once."""
    assert instance.run("cat").stdout == b""


def test_binary_output(instance: Harness) -> None:
    """A megabyte of every byte value comes back as it was written."""
    result = instance.run("inside", "bytes", "4096")
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(ALL_BYTES * 4096).digest()


def test_binary_input(instance: Harness) -> None:
    """A megabyte of every byte value reaches the program as it was sent."""
    session = instance.start("sha256sum", stdin=True)
    session.channel.write(ALL_BYTES * 4096)
    session.channel.end_input()
    assert session.wait().text.split()[0] == hashlib.sha256(ALL_BYTES * 4096).hexdigest()


def test_long_arguments(instance: Harness) -> None:
    """An argument of 100 kB reaches the program whole, and empty ones stay."""
    result = instance.run("sh", "-c", 'echo "$# ${#1} ${#2} $3"', "sh", "x" * 100_000, "", "a b\t'\"")
    assert result.text == "3 100000 0 a b\t'\""


def test_environment(instance: Harness) -> None:
    """The program gets just the plan's environment, and HOME."""
    result = instance.run("env", env=("A=1", "EMPTY=", "LONG=a b=c"))
    assert sorted(result.lines) == sorted(
        ["A=1", "EMPTY=", "LONG=a b=c", "PATH=/bin:/usr/bin:/sbin:/usr/sbin", "HOME=/root"]
    )


def test_working_directory(instance: Harness) -> None:
    """The program starts in the working directory, which is made when it is missing."""
    assert instance.run("pwd", cwd="/home/ann").text == "/home/ann"
    assert instance.run("pwd", cwd="/srv/new/place").text == "/srv/new/place"


@pytest.mark.parametrize("cwd", ["/proc/self/fd/3", "/proc/self/fd/8", "/bin/busybox"])
def test_bad_working_directory_is_refused(instance: Harness, cwd: str) -> None:
    """A working directory that is a file, or a way out through a descriptor, is refused by name (CVE-2024-21626)."""
    with pytest.raises((InvalidArgument, NotFound), match=cwd):
        instance.run("pwd", cwd=cwd)


def test_terminal(instance: Harness) -> None:
    """With a terminal the program has one: output merged, lines ended as terminals do, and its size."""
    session = instance.start(
        "sh", "-c", "test -t 0 && test -t 2 && stty size && tty", terminal=True, rows=30, columns=100
    )
    result = session.wait()
    assert result.code == 0, result
    assert result.stdout.startswith(b"30 100\r\n/dev/")


def test_terminal_resize(instance: Harness) -> None:
    """A resized terminal tells the program."""
    session = instance.start("inside", "terminal", terminal=True, stdin=True, rows=24, columns=80)
    session.until(b"24 80")
    session.channel.resize(50, 132)
    session.until(b"50 132")


def test_terminal_interrupt(instance: Harness) -> None:
    """The interrupt character on a terminal interrupts the program."""
    session = instance.start(
        "sh", "-c", "trap 'exit 130' INT; echo ready; while :; do sleep 0.05; done", terminal=True, stdin=True
    )
    session.until(b"ready")
    session.channel.write(b"\x03")
    assert session.wait().code == 130


def test_program_not_found(instance: Harness) -> None:
    """A program that isn't in the image is told by its name, with the path it was looked for in."""
    with pytest.raises(ProgramNotFound, match="no-such-program"):
        instance.run("no-such-program")
    with pytest.raises(ProgramNotFound, match="/opt/missing"):
        instance.run("/opt/missing")


@pytest.mark.parametrize("path", ["/opt/plain", "/opt/noexec", "/opt/garbage", "/opt/orphan-script"])
def test_program_not_executable(instance: Harness, path: str) -> None:
    """What can't be executed (no permission, a directory, no interpreter) is told apart from what is missing."""
    with pytest.raises(ProgramNotExecutable, match=path) as caught:
        instance.run(path)
    assert isinstance(caught.value, Denied)


def test_failed_start_leaves_nothing(instance: Harness) -> None:
    """After a start that failed, `release` takes away what there is, and the instance can be started."""
    with pytest.raises(ProgramNotFound):
        instance.run("no-such-program")
    assert instance.status().word in ("gone", "exited")
    instance.driver.release(instance.plan)
    assert instance.status().word == "gone"
    assert instance.shell("echo again").text == "again"


def test_only_standard_descriptors_are_open(instance: Harness) -> None:
    """The program has descriptors 0, 1 and 2, and no other (CVE-2016-9962, CVE-2024-21626)."""
    assert instance.run("inside", "descriptors").lines == ["0", "1", "2"]


def test_signals_are_default(instance: Harness) -> None:
    """The program starts with no signal blocked and none ignored."""
    lines = instance.run("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status").lines
    assert [line.split()[1] for line in lines] == ["0000000000000000"] * 2


def test_plan_is_told_before_it_is_done(instance: Harness) -> None:
    """What a start would do is told line by line, and nothing is done."""
    steps = instance.driver.operations(instance.planned("true"))
    assert steps
    assert instance.status().word == "gone"
    assert all("\n" not in step for step in steps)
