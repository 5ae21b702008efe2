"""The Python side of a monitor: channels, records, processes, children."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trivet.launch.channel import BrokenStream, Channel
from trivet.launch.frame import Type, pack
from trivet.launch.monitor import (
    Ending,
    Failure,
    MalformedRecord,
    Process,
    connect,
    read_ending,
    read_process,
    start_time,
)
from trivet.launch.operation import Background, Exec, Monitor, Operation, Spawn, Wait
from trivet.launch.spawn import LaunchError, launcher_descriptor, reap, spawn

if TYPE_CHECKING:
    from tests.kernel.conftest import Launch, Listen

pytestmark = pytest.mark.needs("root")
PATH = ("PATH=/usr/bin:/bin",)


def test_a_long_path_can_be_connected_to(launch: Launch, listen: Listen) -> None:
    """A monitor directory beyond 107 bytes works for monitor and client."""
    directory = launch.directory() / ("x" * 120)
    directory.mkdir()
    channel = launch.start("echo", "far", directory=directory)
    assert listen(channel).output == b"far\n"


def test_a_detached_socket_has_lost_nothing(launch: Launch) -> None:
    """After detach the next byte is the next frame's first."""
    channel = launch.shell("read x; echo $x")
    assert channel.receive(10) is not None
    with pytest.raises(TimeoutError):
        channel.receive(0.05)
    channel.write(b"word\n")
    with channel.detach() as raw:
        raw.settimeout(10)
        data = b"".join(iter(lambda: raw.recv(3), b""))
    assert data.startswith(pack(Type.STDOUT, b"word\n"))


def test_a_malformed_stream_is_recognised() -> None:
    """A header no monitor sends is an error, not a huge allocation."""
    ours, theirs = socket.socketpair()
    with theirs, Channel(ours) as channel:
        theirs.sendall(b"\x45\0\0\0\xff\xff\xff\xff")
        with pytest.raises(BrokenStream):
            channel.receive(5)


def test_nobody_listens_in_an_empty_directory(tmp_path: Path) -> None:
    """Without a monitor there is no channel, no process and no ending."""
    assert (connect(tmp_path), read_process(tmp_path), read_ending(tmp_path)) == (None, None, None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("7 0 123 0\n", Ending(7, 0, 123)),
        ("137 9 5 1\n", Ending(137, 9, 5, True)),
        ("137 9 5 0 machine ended\n", Ending(137, 9, 5, False, "machine ended")),
        ("failed 3 2 x not found in PATH\n", Failure(3, 2, "x not found in PATH")),
        ("failed 3 2 \n", Failure(3, 2, "")),
    ],
)
def test_the_exit_record_is_read(tmp_path: Path, line: str, expected: Ending | Failure) -> None:
    """Each form of the exit file becomes its record."""
    (tmp_path / "exit").write_text(line)
    assert read_ending(tmp_path) == expected


@pytest.mark.parametrize("line", ["", "x", "1 2 3", "failed x", "1 2 3 x"])
def test_a_malformed_record_is_corrupt(tmp_path: Path, line: str) -> None:
    """Anything else is said to be malformed, with the file's name."""
    (tmp_path / "exit").write_text(line)
    with pytest.raises(MalformedRecord, match="exit"):
        read_ending(tmp_path)


def test_a_process_is_not_mistaken_for_its_successor() -> None:
    """The same pid with another start time, or a zombie, is not the process."""
    child = subprocess.Popen(["sleep", "30"])
    process = Process(child.pid, start_time(child.pid))
    assert process.lives()
    with pytest.raises(ProcessLookupError):
        Process(child.pid, process.start_time + 1).signal(signal.SIGTERM)
    process.signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while process.lives() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not process.lives()
    assert child.wait() == -signal.SIGKILL


def test_only_our_own_children_are_reaped(launch: Launch, listen: Listen) -> None:
    """`reap` collects ended monitors and leaves other children's statuses to their owners."""
    other = subprocess.Popen(["sh", "-c", "exit 5"])
    listen(launch.start("true"))
    deadline = time.monotonic() + 5
    while reap() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert reap() == 0
    assert other.wait() == 5


def test_the_launcher_can_not_be_written_to() -> None:
    """What runs is a sealed copy (CVE-2019-5736)."""
    descriptor = os.open(f"/proc/self/fd/{launcher_descriptor()}", os.O_RDWR)
    with pytest.raises(PermissionError):
        os.write(descriptor, b"x")
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)
    assert launcher_descriptor() == launcher_descriptor()


HELPER = """
import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); print('up', flush=True); time.sleep(60)
"""


def helped(directory: Path, *helper: str, ready: str) -> list[Operation]:
    """A plan with a helper before its program."""
    background = Background(helper, str(directory / "helper.log"), ready)
    return [Monitor(str(directory)), background, Spawn(), Wait(), Exec(("ls", ready), PATH)]


def test_a_helper_is_ready_before_the_program_and_gone_after_it(launch: Launch, listen: Listen) -> None:
    """Background waits for the helper's socket; with the monitor the helper ends."""
    directory = launch.directory()
    ready = str(directory / "h.sock")
    channel = spawn(helped(directory, sys.executable, "-c", HELPER, ready, ready=ready))
    channel.attach()
    channel.go()
    assert listen(channel).output.decode().strip() == ready
    assert (directory / "helper.log").read_text() == "up\n"
    deadline = time.monotonic() + 5
    while running(ready) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not running(ready)


def running(word: str) -> bool:
    """Tell whether some process has this word among its arguments."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


@pytest.mark.parametrize(
    ("helper", "words"), [(("/nonesuch/helper",), "start /nonesuch/helper"), (("false",), "ended before it was ready")]
)
def test_a_helper_that_fails_fails_the_start(launch: Launch, helper: tuple[str, ...], words: str) -> None:
    """A helper that is missing or ends early is named."""
    directory = launch.directory()
    with pytest.raises(LaunchError, match=words) as caught:
        spawn(helped(directory, *helper, ready=str(directory / "h.sock")))
    assert isinstance(caught.value.operation, Background)


# Runs in a pid namespace of its own, where it says which number the next process gets.
SUCCESSOR = """
import signal, subprocess, sys, time
from pathlib import Path
from trivet.launch.operation import Background, Exec, Monitor, Spawn, Wait
from trivet.launch.spawn import spawn

directory = Path(sys.argv[1])
helper = Background(("sleep", "0.31"), str(directory / "helper.log"), "")
channel = spawn([Monitor(str(directory)), helper, Spawn(), Wait(), Exec(("sleep", "60"))])
channel.attach()
channel.go()
words = b"sleep\\0" b"0.31\\0"
[number] = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if path.read_bytes() == words]
while Path(f"/proc/{number}").exists():
    time.sleep(0.01)
Path("/proc/sys/kernel/ns_last_pid").write_text(str(number - 1))
successor = subprocess.Popen(["sleep", "60"])
assert successor.pid == number
channel.signal(signal.SIGKILL)
while channel.receive(10) is not None:
    pass
time.sleep(0.2)
print(successor.poll())
"""


def test_who_has_a_helpers_number_after_it_is_left_alone(tmp_path: Path) -> None:
    """A helper that ended by itself is not killed once more at the end: its number may be another process's."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", SUCCESSOR, tmp_path],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("None\n", "")
