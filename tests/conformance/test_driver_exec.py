"""The contract, part four: further programs in a running instance."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.conformance.harness import Harness, Session

from trivet.base.error import Conflict
from trivet.isolation.failure import ProgramNotExecutable, ProgramNotFound, UnknownUser
from trivet.isolation.plan import Program


@pytest.fixture
def running(instance: Harness) -> Harness:
    """An instance whose program waits."""
    instance.start("sh", "-c", "echo up; echo main > /tmp/main; exec sleep 600").until(b"up")
    return instance


def test_exec_contract(running: Harness) -> None:
    """An added program sees the instance, and has its own streams, exit code, user, place and environment."""
    coded = running.exec("sh", "-c", "cat /tmp/main; exit 7").wait()
    assert (coded.code, coded.stdout) == (7, b"main\n")
    separated = running.exec("sh", "-c", "echo out; echo err >&2").wait()
    assert (separated.stdout, separated.stderr) == (b"out\n", b"err\n")
    assert running.exec("id", "-u", user="ann").wait().text == "1000"
    assert running.exec("pwd", cwd="/home/ann").wait().text == "/home/ann"
    assert "A=1" in running.exec("env", env=("A=1",)).wait().lines
    session = running.exec("cat", stdin=True)
    session.channel.write(b"typed")
    session.channel.end_input()
    assert session.wait().stdout == b"typed"
    terminal = running.exec("sh", "-c", "test -t 0 && stty size", terminal=True, rows=40, columns=90).wait()
    assert (terminal.code, terminal.stdout) == (0, b"40 90\r\n")
    names = running.exec("ps", "-o", "args").wait().lines
    assert "sleep 600" in names


def test_exec_failures(running: Harness) -> None:
    """An added program that is missing, not executable, or of an unknown user is told apart; the instance runs on."""
    for error, program in (
        (ProgramNotFound, Program(argv=("no-such-program",), env=("PATH=/bin",))),
        (ProgramNotExecutable, Program(argv=("/opt/plain",))),
        (UnknownUser, Program(argv=("true",), user="nobody-here")),
    ):
        with pytest.raises(error):
            running.enter(program)
    assert running.status().word == "running"
    assert running.exec("echo", "fine").wait().text == "fine"


def test_exec_has_the_instances_rights(running: Harness) -> None:
    """An added program has the instance's capabilities and filter, and nothing inheritable (CVE-2022-29162)."""
    expression = "^(CapInh|CapEff|CapBnd|NoNewPrivs|Seccomp):"
    added = running.exec("grep", "-E", expression, "/proc/self/status").wait().lines
    own = running.exec("grep", "-E", expression, "/proc/1/status").wait().lines
    if running.expect("pid of the program") == 1:
        assert added == own
    if running.expect("capabilities dropped"):
        assert added[0].split()[1] == "0000000000000000"


def test_exec_leaks_no_descriptor(running: Harness) -> None:
    """An added program has descriptors 0, 1 and 2, and no other."""
    assert running.exec("inside", "descriptors").wait().lines == ["0", "1", "2"]


def test_exec_many_at_once(running: Harness) -> None:
    """Many added programs run side by side without mixing their output."""
    sessions: list[Session] = [running.exec("sh", "-c", f"sleep 0.2; echo {i}") for i in range(8)]
    assert [session.wait().text for session in sessions] == [str(i) for i in range(8)]


def test_exec_killed_by_signal(running: Harness) -> None:
    """An added program can be signalled on its own."""
    session = running.exec("sh", "-c", "echo up; exec sleep 60")
    session.until(b"up")
    session.channel.signal(15)
    assert session.wait().code == 143
    assert running.status().word == "running"


def test_exec_ends_with_the_instance(running: Harness) -> None:
    """An added program ends when the instance does."""
    session = running.exec("sh", "-c", "echo up; exec sleep 60")
    session.until(b"up")
    running.driver.signal(running.plan, 9)
    assert session.wait().code == 137
    running.becomes("exited")


def test_exec_needs_a_running_instance(instance: Harness) -> None:
    """Adding a program to an instance that doesn't run is refused with the status."""
    with pytest.raises(Conflict, match="not running"):
        instance.exec("true")
    instance.start("true").wait()
    with pytest.raises(Conflict, match="not running"):
        instance.exec("true")


def test_output_waits_for_clients_that_read_late(instance: Harness) -> None:
    """What programs wrote before they ended is not lost on clients that pause for longer than any patience.

    The sizes lie around what all the buffers on the way hold: somewhere there a program has ended while its
    last bytes still wait in its pipe.
    """
    instance.start("sleep", "600")
    blocks = range(1800, 4000, 200)
    begun = time.monotonic()
    sessions = [instance.exec("inside", "bytes", str(count)) for count in blocks]
    time.sleep(max(0, begun + 4 - time.monotonic()))
    with ThreadPoolExecutor(len(sessions)) as pool:  # nobody has to wait for the others, until a monitor gives up on it
        found = list(pool.map(lambda session: len(session.wait().stdout) // 256, sessions))
    assert found == list(blocks)
