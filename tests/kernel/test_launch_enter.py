"""Programs that a monitor adds to its own by making a copy of itself."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trivet.launch import enter
from trivet.launch.channel import Channel, dial
from trivet.launch.enter import Entry
from trivet.launch.frame import Type, pack
from trivet.launch.launcher import adopt, launcher_key, move_up, start
from trivet.launch.monitor import Process, start_time
from trivet.launch.operation import Exec, Hostname, Join, Monitor, Operation, Spawn, Unshare, User, Wait, encode
from trivet.launch.spawn import LaunchError, spawn

if TYPE_CHECKING:
    from tests.kernel.conftest import Launch, Listen

pytestmark = pytest.mark.needs("root")
PATH = ("PATH=/usr/bin:/bin",)
CLONE_NEWUTS = 0x04000000
ATTACH_ALL = b"\7\0\0\0"


def added(script: str, *operations: Operation, **spawning: int) -> Entry:
    """A plan for a further program."""
    begin = Spawn(**spawning)  # type: ignore[arg-type]
    return Entry.of([begin, *operations, Wait(), Exec(("sh", "-c", script), PATH)])


def running(launch: Launch, script: str, *operations: Operation) -> tuple[Path, Channel]:
    """Start a program that others can be added to; its directory, and its channel."""
    directory = launch.directory()
    channel = spawn([Monitor(str(directory)), Spawn(stdin=1), *operations, Wait(), Exec(("sh", "-c", script), PATH)])
    channel.attach()
    channel.go()
    hear(channel, Type.STARTED)
    return directory, channel


def hear(channel: Channel, kind: Type) -> bytes:
    """Receive until something of this kind is said."""
    while frame := channel.receive(30):
        if frame.type is kind:
            return frame.payload
    raise AssertionError(f"the monitor hung up before {kind.name}")


def begin(directory: Path, entry: Entry) -> Channel:
    """Add a program and let it go."""
    channel = enter.add(directory, entry)
    assert channel is not None
    channel.attach()
    channel.go()
    return channel


def say(directory: Path, *frames: bytes) -> Channel:
    """Say several things at once to a monitor."""
    connection = dial(directory / enter.SOCKET)
    connection.sendall(b"".join(frames))
    return Channel(connection)


def gone(process: Process) -> bool:
    """Wait for a process to end."""
    deadline = time.monotonic() + 30
    while process.lives() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not process.lives()


def parent(pid: int) -> int:
    """Tell whose child a process is."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_program_is_added_to_the_monitors_own(launch: Launch, listen: Listen) -> None:
    """Process 0 is the monitor's program, whose namespaces the added one joins; it has its own streams and status."""
    directory, _ = running(launch, "sleep 60", Unshare(CLONE_NEWUTS), Hostname("inner", ""))
    heard = listen(begin(directory, added("hostname; echo bad >&2; exit 7", Join(enter.PROGRAM, CLONE_NEWUTS))))
    assert (heard.output, heard.error_output, heard.exits[0].code) == (b"inner\n", b"bad\n", 7)


def test_everything_can_be_said_at_once(launch: Launch, listen: Listen) -> None:
    """GO behind ENTER lets the program begin when it is set up, and nobody is told that it waits."""
    directory, _ = running(launch, "sleep 60")
    asked = pack(Type.ENTER, added("cat", stdin=1).request())
    words = pack(Type.ATTACH, ATTACH_ALL), pack(Type.GO), pack(Type.STDIN, b"typed"), pack(Type.STDIN)
    heard = listen(say(directory, asked, *words))
    assert heard.types == [Type.HELLO, Type.STARTED, Type.STDOUT, Type.EXIT]
    assert heard.output == b"typed"


def test_what_failed_is_named(launch: Launch) -> None:
    """An operation that fails is the one of the plan that was sent."""
    directory, _ = running(launch, "sleep 60")
    with pytest.raises(LaunchError) as caught:
        enter.add(directory, added("true", User("nobody-here", ())))
    assert isinstance(caught.value.operation, User)


def test_a_waiting_program_is_not_let_go_by_a_refused_request(launch: Launch, listen: Listen) -> None:
    """Where the program has not begun nothing is added, and what was said behind the request means nothing."""
    directory = launch.directory()
    channel = spawn(launch.plan(directory, "echo", "began"))
    frames = pack(Type.ENTER, added("true").request()), pack(Type.ATTACH, ATTACH_ALL), pack(Type.GO)
    assert listen(say(directory, *frames)).types == [Type.HELLO, Type.FAILED]
    assert enter.add(directory, added("true")) is None
    channel.attach()
    with pytest.raises(TimeoutError):
        channel.receive(0.3)
    channel.go()
    assert listen(channel).output == b"began\n"


def test_a_monitor_of_another_launcher_adds_nothing(launch: Launch, listen: Listen) -> None:
    """Plans are for the launcher they were made with: one that has another key, or none, refuses."""
    directory, _ = running(launch, "sleep 60")
    for key in ("", "0" * len(launcher_key())):
        payload = key.encode() + encode(added("true").operations)
        heard = listen(say(directory, pack(Type.ENTER, payload), pack(Type.GO)))
        assert heard.types == [Type.HELLO, Type.FAILED]
    unaware = launch.directory()
    report = move_up(os.pipe()[1])
    adopt(start(encode([Monitor(str(unaware)), Spawn(), Exec(("sleep", "60"), PATH)]), report, []))
    os.close(report)
    deadline = time.monotonic() + 30
    while not (unaware / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert enter.add(unaware, added("true")) is None


def test_nobody_adds_anything_where_no_monitor_is(tmp_path: Path) -> None:
    """Without a monitor nothing is asked."""
    assert enter.add(tmp_path, added("true")) is None


def test_a_copy_holds_nothing_of_the_monitors(launch: Launch, listen: Listen) -> None:
    """The program's input ends though an added program runs on, whose monitor has only what is its own open."""
    directory, channel = running(launch, "cat; echo ended")
    other = begin(directory, added("echo $$; exec sleep 60"))
    copy = parent(int(hear(other, Type.STDOUT)))
    places = {str(path.readlink()) for path in Path(f"/proc/{copy}/fd").iterdir()}
    assert not [place for place in places if place.startswith(str(directory))]
    channel.end_input()
    assert hear(channel, Type.STDOUT) == b"ended\n"
    other.signal(signal.SIGKILL)
    assert listen(other).exits[0].signal == signal.SIGKILL


def test_copies_end_with_the_monitor(launch: Launch) -> None:
    """Whoever kills a monitor has killed what adds programs in its name."""
    directory, _ = running(launch, "sleep 60")
    channel = enter.add(directory, added("sleep 60"))
    assert channel is not None
    program = int((directory / "pid").read_text().split()[0])
    monitor = parent(program)
    children = Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()
    [copy] = [Process(int(word), start_time(int(word))) for word in children if int(word) != program]
    os.kill(monitor, signal.SIGKILL)
    assert gone(copy)
    assert channel.receive(30) is None
    os.kill(program, signal.SIGKILL)


def test_a_monitor_waits_for_what_was_added(launch: Launch, listen: Listen) -> None:
    """When the program ends, who waits for an added one still hears how that ends."""
    directory, channel = running(launch, "read x")
    other = begin(directory, added("read x; exit 3", stdin=1))
    channel.write(b"\n")
    assert listen(channel).exits[0].code == 0
    other.write(b"\n")
    assert listen(other).exits[0].code == 3
