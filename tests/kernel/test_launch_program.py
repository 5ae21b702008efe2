"""Programs under a monitor: streams, clients, signals, ends."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trivet.base.error import TrivetError
from trivet.launch.channel import Channel
from trivet.launch.frame import Type
from trivet.launch.log import records
from trivet.launch.monitor import Ending, Failure, await_ending, connect, read_ending, read_process
from trivet.launch.operation import Exec, Join, Monitor, OpenTree, Root, Spawn, Wait
from trivet.launch.spawn import LaunchError, LaunchTimeout, reap, run, spawn

if TYPE_CHECKING:
    from tests.kernel.conftest import Launch, Listen

PATH = ("PATH=/usr/bin:/bin",)
CLONE_NEWUTS = 0x4000000


def test_streams_are_kept_apart_and_the_exit_comes_last(launch: Launch, listen: Listen) -> None:
    """Output and errors arrive in their own frames, then exactly one exit."""
    heard = listen(launch.shell("echo out; echo err >&2; exit 7"))
    assert (heard.output, heard.error_output) == (b"out\n", b"err\n")
    assert [ending.code for ending in heard.exits] == [7]
    assert heard.types[0] is Type.STARTED
    assert heard.types[-1] is Type.EXIT


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_is_told_apart_from_a_status(launch: Launch, listen: Listen, number: int) -> None:
    """Death by signal n is code 128+n and says the signal."""
    [ending] = listen(launch.shell(f"kill -{int(number)} $$")).exits
    assert (ending.code, ending.signal) == (128 + number, number)
    assert read_ending(launch.directories[0]) == ending


@contextmanager
def writing(directory: Path, data: bytes) -> Iterator[None]:
    """Send input and its end over a connection of its own, while the caller listens."""
    with Channel.connect(directory / "monitor.sock") as channel, ThreadPoolExecutor(1) as pool:
        channel.greet(10)
        channel.attach(stdout=False, stderr=False)
        written = pool.submit(channel.write, data)
        ended = pool.submit(channel.end_input)
        yield
        written.result(10)
        ended.result(10)


def test_binary_input_comes_back_byte_for_byte(launch: Launch, listen: Listen) -> None:
    """Three megabytes of all byte values pass through cat unharmed."""
    data = os.urandom(1 << 20) + bytes(range(256)) * 8192
    channel = launch.start("cat", stdin=1)
    with writing(launch.directories[0], data):
        heard = listen(channel)
    assert heard.output == data


def test_input_ends_only_when_it_is_said(launch: Launch, listen: Listen) -> None:
    """A client that goes away does not end the program's input; an empty STDIN frame does."""
    first = launch.start("cat", stdin=1)
    first.write(b"one ")
    first.close()
    second = connect(launch.directories[0])
    assert second is not None
    second.attach()
    second.write(b"two")
    second.end_input()
    assert [ending.code for ending in listen(second).exits] == [0]
    assert b"".join(record.content for record in records(launch.directories[0] / "log")) == b"one two"


def test_input_of_a_client_that_left_still_arrives(launch: Launch) -> None:
    """What a client sent before it closed its connection reaches a program that reads it late."""
    data = os.urandom(200_000)
    channel = launch.shell("sleep 0.5; wc -c; exit 2")
    channel.write(data)
    channel.end_input()
    channel.close()
    ending = await_ending(launch.directories[0], 20)
    assert isinstance(ending, Ending)
    assert ending.code == 2
    assert b"".join(record.content for record in records(launch.directories[0] / "log")) == b"200000\n"


def test_clients_that_left_input_nobody_reads_do_not_lock_others_out(launch: Launch, listen: Listen) -> None:
    """Where every place is taken by input that waits for the program, the program can still be reached."""
    first = launch.shell("exec sleep 60")
    with ExitStack() as stack:
        for channel in (first, *(connect(launch.directories[0]) for _ in range(63))):
            assert channel is not None
            stack.enter_context(channel)
            channel.attach()
            channel.write(bytes(100_000))
    last = connect(launch.directories[0])
    assert last is not None
    last.attach()
    last.signal(signal.SIGKILL)
    assert [ending.code for ending in listen(last).exits] == [137]


def test_without_input_the_program_reads_nothing(launch: Launch, listen: Listen) -> None:
    """A program without stdin gets /dev/null."""
    heard = listen(launch.shell("wc -c; readlink /proc/self/fd/0", stdin=0))
    assert heard.output == b"0\n/dev/null\n"


def test_long_arguments_and_environment_arrive(launch: Launch, listen: Listen) -> None:
    """An argument and a variable of 100 kB each are passed whole."""
    directory = launch.directory()
    long = "x" * 100_000
    plan = [
        Monitor(str(directory)),
        Spawn(),
        Wait(),
        Exec(("sh", "-c", "echo ${#1} ${#V}", "sh", long), (*PATH, f"V={long}")),
    ]
    channel = spawn(plan)
    channel.attach()
    channel.go()
    assert listen(channel).output == b"100000 100000\n"


def test_nothing_of_ours_leaks_into_the_program(launch: Launch, listen: Listen) -> None:
    """Only descriptors 0 to 2, no blocked or ignored signals, a session of its own, HOME set."""
    heard = listen(
        launch.shell(
            "ls /proc/self/fd | tr '\\n' ' '; grep -E 'Sig(Blk|Ign)' /proc/self/status; ps -o sid= -p $$; echo $$ $HOME"
        )
    )
    lines = heard.output.decode().split("\n")
    assert lines[0].startswith("0 1 2 3 Sig")  # 3 is the directory ls itself lists
    assert [line.split()[-1] for line in lines[:2]] == ["0" * 16, "0" * 16]
    assert lines[2].strip() == lines[3].split()[0]
    assert lines[3].split()[1] == "/"


def test_a_monitor_keeps_nothing_that_it_opened_for_the_child(launch: Launch) -> None:
    """Processes joined, roots and trees opened on the way to the child do not stay open for the instance's life."""
    directory = launch.directory()
    opened = [Join(os.getpid(), CLONE_NEWUTS), Root("/"), OpenTree("/dev", 0)]
    plan = [Monitor(str(directory)), *opened, Spawn(), Wait(), Exec(("sleep", "60"), PATH)]
    with spawn(plan):
        process = read_process(directory)
        assert process is not None
        monitor = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")")[1].split()[1]
        descriptors = {str(path.readlink()) for path in Path(f"/proc/{monitor}/fd").iterdir()}
    assert not {"/", "/dev", "anon_inode:[pidfd]"} & descriptors


def test_an_exit_is_told_on_a_full_disk(launch: Launch, listen: Listen) -> None:
    """The exit file is there when there is no room for anything else."""
    directory = launch.directory()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "full", directory], check=True)
    try:
        script = f"cat /dev/zero 2>&- > {directory}/filler; echo x > {directory}/more; exit 3"
        heard = listen(launch.start("sh", "-c", script, directory=directory))
        assert b"I/O error" in heard.error_output  # the shell could not write
        assert read_ending(directory) == heard.exits[0]
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def end_sleep(seconds: str) -> None:
    """End a `sleep` that was left behind, which must still be there: nobody waited for it, nor killed it."""
    (left,) = (
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.read_bytes() == f"sleep\0{seconds}\0".encode()
    )
    os.kill(left, signal.SIGKILL)


def test_orphans_that_hold_the_output_are_waited_for_two_seconds(launch: Launch, listen: Listen) -> None:
    """A child left behind holds stdout: the exit comes two seconds after its last word, with that word."""
    begun, mark = time.monotonic(), f"78{os.getpid()}"
    heard = listen(launch.shell(f"(sleep 1; echo late; exec sleep {mark}) & echo early"))
    assert time.monotonic() - begun > 2.5
    assert heard.output == b"early\nlate\n"
    assert [ending.code for ending in heard.exits] == [0]
    end_sleep(mark)


def test_every_client_hears_the_exit_and_attached_ones_the_output(launch: Launch, listen: Listen) -> None:
    """Two attached clients get the same output; one that only watches gets the exit."""
    directory = launch.directory()
    first = spawn(launch.plan(directory, "sh", "-c", "echo hello; exit 3", stdin=0))
    second, watcher = connect(directory), connect(directory)
    assert second is not None
    assert watcher is not None
    first.attach()
    second.attach()
    time.sleep(0.05)
    first.go()
    heard = [listen(channel) for channel in (first, second, watcher)]
    assert [h.output for h in heard] == [b"hello\n", b"hello\n", b""]
    assert [[ending.code for ending in h.exits] for h in heard] == [[3], [3], [3]]


def test_a_client_that_stops_reading_slows_the_program_down(launch: Launch) -> None:
    """With a stalled client the monitor's memory stays small and the program waits; it goes on without the client."""
    channel = launch.shell("head -c 20000000 /dev/zero; echo done >&2")
    time.sleep(1)
    directory = launch.directories[0]
    assert read_ending(directory) is None
    assert resident(parent_of(directory)) < 1500 * 1024
    channel.close()
    ending = await_ending(directory, 20)
    assert isinstance(ending, Ending)
    assert ending.code == 0


def expect(channel: Channel, kind: Type) -> bytes:
    """Receive a frame of this type; its payload."""
    frame = channel.receive(10)
    assert frame is not None
    assert frame.type is kind
    return frame.payload


def resident(pid: int) -> int:
    """Proportional memory of a process, in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024


def test_monitors_are_small(launch: Launch) -> None:
    """Idle monitors take less than 100 kB each; they share the launcher's text, so four are measured."""
    channels = [launch.start("sleep", "5") for _ in range(4)]
    for channel in channels:
        expect(channel, Type.STARTED)
    sizes = [resident(parent_of(directory)) for directory in launch.directories]
    for channel in channels:
        channel.close()
    assert max(sizes) < 100 * 1024


def parent_of(directory: Path) -> int:
    """The monitor's pid: the parent of its program."""
    process = read_process(directory)
    assert process is not None
    return int(Path(f"/proc/{process.pid}/stat").read_text().rsplit(")")[-1].split()[1])


def test_a_broken_client_is_let_go(launch: Launch, listen: Listen) -> None:
    """A client that sends rubbish, or asks before it attached, is disconnected; the program goes on."""
    channel = launch.shell("read x; echo $x")
    for rubbish in (b"\xff" * 64, b"\x03\0\0\0\xff\xff\xff\x7f", b"\x02\0\0\0\0\0\0\0"):
        other = connect(launch.directories[0])
        assert other is not None
        with other.detach() as raw:
            raw.sendall(rubbish)
            raw.settimeout(5)
            while raw.recv(100):  # STARTED may come first; the end of the stream must
                pass
    channel.write(b"alive\n")
    assert listen(channel).output == b"alive\n"


def test_signals_reach_the_program_and_a_dead_one_is_no_mistake(launch: Launch, listen: Listen) -> None:
    """SIGNAL is delivered; after the end it changes nothing."""
    channel = launch.shell("trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.05; done")
    expect(channel, Type.STARTED)
    assert expect(channel, Type.STDOUT) == b"ready\n"
    channel.signal(signal.SIGUSR1)
    channel.signal(signal.SIGUSR1)
    heard = listen(channel)
    assert (heard.output, [ending.code for ending in heard.exits]) == (b"caught\n", [5])


def test_killed_while_it_waits_it_never_began(launch: Launch, listen: Listen) -> None:
    """A program killed before GO has failed, not exited."""
    directory = launch.directory()
    channel = spawn(launch.plan(directory, "true"))
    channel.attach()
    channel.signal(signal.SIGKILL)
    heard = listen(channel)
    assert heard.exits == []
    assert b"died while it was being set up" in heard.failures[0]
    assert isinstance(read_ending(directory), Failure)


@pytest.mark.parametrize(
    ("program", "words", "errno"),
    [
        ("nonesuch-program", "not found in PATH", 2),
        ("/nonesuch/program", "not found", 2),
        ("/etc/passwd", "no permission to execute", 13),
        ("/etc", "is a directory", 13),
        ("{tmp}/script", "its interpreter /nonesuch/sh does not", 2),
        ("{tmp}/garbage", "no format this kernel executes", 8),
    ],
)
def test_why_a_program_can_not_be_executed(
    launch: Launch, listen: Listen, tmp_path: Path, program: str, words: str, errno: int
) -> None:
    """The failure says what is missing: file, permission, interpreter or format; the exit file says it too."""
    (tmp_path / "script").write_text("#!/nonesuch/sh\n")
    (tmp_path / "garbage").write_bytes(b"\x01\x02")
    for file in tmp_path.iterdir():
        file.chmod(0o755)
    heard = listen(launch.start(program.format(tmp=tmp_path)))
    failure = read_ending(launch.directories[0])
    assert isinstance(failure, Failure)
    assert words in failure.text
    assert (failure.index, failure.errno) == (3, errno)
    assert heard.exits == []
    assert len(heard.failures) == 1


def test_a_failing_set_up_names_its_operation(launch: Launch) -> None:
    """What fails before the program is there is raised with the operation, and recorded."""
    directory = launch.directory()
    with pytest.raises(LaunchError, match="nonesuch") as caught:
        spawn([Monitor(str(directory)), Spawn(), Exec(("/nonesuch",))])
    assert isinstance(caught.value, TrivetError)
    assert isinstance(caught.value.operation, Exec)
    assert isinstance(await_ending(directory, 5), Failure)


def test_the_monitor_outlives_whoever_started_it(launch: Launch, short_path: Path) -> None:
    """Killed with -9, the engine's process leaves program, log and exit status behind."""
    directory = launch.directory()
    code = (
        "import os, pathlib, sys; from trivet.launch.spawn import spawn; from trivet.launch.operation import *\n"
        "d = pathlib.Path(sys.argv[1])\n"
        "c = spawn([Monitor(str(d), log=str(d / 'log')), Spawn(), Wait(),"
        " Exec(('sh', '-c', 'echo a; sleep 1; echo b; exit 9'), ('PATH=/bin',))])\n"
        "c.attach(); c.go(); c.receive(5); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, directory]).returncode == -9
    assert connect(directory) is not None
    ending = await_ending(directory, 10)
    assert isinstance(ending, Ending)
    assert ending.code == 9
    text = (directory / "log").read_bytes()
    assert [line.split(b" ")[-1] for line in text.splitlines()] == [b"a", b"b"]


def test_a_lingering_monitor_keeps_the_exit_for_one_client(launch: Launch, listen: Listen) -> None:
    """With linger the exit is told to a client that comes late; then the monitor ends."""
    directory = launch.directory()
    plan = [Monitor(str(directory), linger=1), Spawn(), Exec(("sh", "-c", "exit 4"), PATH)]
    spawn(plan).close()
    time.sleep(0.3)
    late = connect(directory)
    if late is not None:
        assert [ending.code for ending in listen(late).exits] == [4]
    deadline = time.monotonic() + 5
    while reap() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert connect(directory) is None
    assert isinstance(read_ending(directory), Ending)


def test_a_task_gives_its_output_and_status() -> None:
    """A task's streams and status come back; input is given as bytes."""
    done = run([Spawn(), Exec(("sh", "-c", "tr a b; echo e >&2; exit 3"), PATH)], input=b"banana")
    assert (done.code, done.output, done.error_output) == (3, b"bbnbnb", b"e\n")


def test_a_task_that_takes_too_long_is_killed_with_its_child() -> None:
    """After the time-out nothing of the task is left."""
    mark = f"77{os.getpid()}"
    with pytest.raises(LaunchTimeout):
        run([Spawn(), Exec(("sleep", mark), PATH)], timeout=0.3)
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert f"sleep\0{mark}\0".encode() not in commands


def test_a_task_ends_with_who_waits_for_it(tmp_path: Path) -> None:
    """Nothing of it is left when the engine is killed, so that it keeps no file locked."""
    script = (
        "import sys; from trivet.launch.operation import Exec, Spawn; from trivet.launch.task import run; "
        "run([Spawn(), Exec(('/bin/sh', '-c', 'echo $$ >\"$0\"; exec sleep 600', sys.argv[1]))])"
    )
    waiting = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "pid")])
    while not (tmp_path / "pid").exists() or not (text := (tmp_path / "pid").read_text()):
        assert waiting.poll() is None
    descriptor = os.pidfd_open(int(text))
    try:
        waiting.kill()
        waiting.wait()
        assert select.select([descriptor], [], [], 60)[0]
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


def test_a_tasks_orphans_do_not_hold_it_up() -> None:
    """A process that keeps a finished task's output open is listened to for two quiet seconds."""
    mark = f"79{os.getpid()}"
    done = run([Spawn(), Exec(("sh", "-c", f"sleep {mark} & echo done"), PATH)])
    assert (done.code, done.output) == (0, b"done\n")
    end_sleep(mark)


def test_a_client_stalled_at_the_end_does_not_hold_up_the_exit(launch: Launch) -> None:
    """Five seconds after a killed program's client stopped reading, the exit is on record without it."""
    channel = launch.shell("exec head -c 8G /dev/zero")
    time.sleep(0.5)
    channel.signal(signal.SIGKILL)
    ending = await_ending(launch.directories[0], 12)
    channel.close()
    assert isinstance(ending, Ending)
    assert ending.signal == signal.SIGKILL


def half_close(channel: Channel) -> socket.socket:
    """Say that nothing more will be sent, and stay."""
    raw = channel.detach()
    raw.shutdown(socket.SHUT_WR)
    return raw


@pytest.mark.parametrize(
    ("script", "leave"),
    [
        ("exec sleep 20", half_close),
        (
            "exec sleep 20",
            lambda channel: (channel.write(bytes(50_000)), channel.write(bytes(50_000)), channel.close()),
        ),
        ("exec >&- 2>&-; exec sleep 20", lambda channel: channel.close()),
        ("exec head -c 8G /dev/zero", lambda channel: None),
    ],
    ids=["half-closed", "gone with input waiting", "output closed", "stalled"],
)
def test_a_monitor_that_waits_takes_no_time(launch: Launch, script: str, leave: Callable[[Channel], object]) -> None:
    """Whatever state its clients are in, a monitor with nothing to do does nothing."""
    kept = launch.shell(script)
    expect(kept, Type.STARTED)
    result = leave(kept)
    time.sleep(0.3)
    monitor = parent_of(launch.directories[0])
    before = ticks(monitor)
    time.sleep(0.7)
    assert ticks(monitor) - before <= 1
    del kept, result


def ticks(pid: int) -> int:
    """CPU time of a process, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()
    return int(fields[11]) + int(fields[12])
