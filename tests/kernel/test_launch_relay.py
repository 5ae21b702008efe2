"""The relay between clients and a guest agent, with a small program in QEMU's place that speaks the agent's frames."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trivet.launch.channel import Channel
from trivet.launch.frame import WINDOW, Type
from trivet.launch.monitor import Ending, Failure, await_ending, connect, read_ending
from trivet.launch.operation import Exec, Monitor, Operation, Relay, Spawn
from trivet.launch.spawn import LaunchError, spawn

if TYPE_CHECKING:
    from tests.kernel.conftest import Launch, Listen

pytestmark = pytest.mark.needs("root")

# What the program in the guest's place knows; each test adds what it does.
AGENT = """
import os, socket, struct, sys, time
port = socket.socket(fileno=7)
header = struct.Struct("<BBHI")
START, GO, STDIN, SIGNAL, EXEC, CREDIT, CLOSE = 1, 2, 3, 5, 7, 8, 9
HELLO, READY, STARTED, FAILED, STDOUT, EXIT = 0x41, 0x42, 0x43, 0x44, 0x45, 0x47
def say(kind, payload=b"", session=0):
    port.sendall(header.pack(kind, 0, session, len(payload)) + payload)
def take(size):
    data = b""
    while len(data) < size:
        part = port.recv(size - len(data))
        if not part:
            sys.exit(0)
        data += part
    return data
def hear(wanted=None):
    while True:
        kind, _, session, length = header.unpack(take(8))
        payload = take(length)
        if wanted in (None, kind):
            return kind, session, payload
def exit_with(code, session=0):
    say(EXIT, struct.pack("<IIQI", code, 0, 1, 0), session)
def begin():
    say(HELLO, b"{}")
    hear(START)
    say(READY)
    hear(GO)
    say(STARTED, b"\\1\\0\\0\\0")
print("this is the machine's own output", flush=True)
"""


def plan(directory: Path, agent: str) -> list[Operation]:
    """A monitor whose child is the agent."""
    return [
        Monitor(str(directory), str(directory / "log")),
        Relay(7, b"the plan"),
        Spawn(),
        Exec((sys.executable, "-c", AGENT + agent), ("PATH=/usr/bin:/bin",)),
    ]


def start(launch: Launch, agent: str) -> Channel:
    """Start, attached and running."""
    directory = launch.directory()
    channel = spawn(plan(directory, agent), timeout=20)
    channel.attach()
    channel.go()
    return channel


def execute(launch: Launch) -> Channel:
    """Open a further session."""
    channel = connect(launch.directories[0])
    assert channel is not None
    channel.send(Type.EXEC, b"another plan")
    return channel


def test_the_agents_program_is_the_instances(launch: Launch, listen: Listen) -> None:
    """Plan, input, output, log and exit go through; the exit is told when the machine has ended."""
    agent = "begin(); s = hear(STDIN)[2]; say(STDOUT, s.upper()); exit_with(9); time.sleep(0.5)"
    channel = start(launch, agent)
    begun = time.monotonic()
    channel.write(b"hello\n")
    heard = listen(channel)
    assert (heard.output, [ending.code for ending in heard.exits]) == (b"HELLO\n", [9])
    assert time.monotonic() - begun > 0.45
    assert b"stdout F HELLO\n" in (launch.directories[0] / "log").read_bytes()
    assert b"own output" in (launch.directories[0] / "machine.log").read_bytes()


def test_a_machine_that_ends_without_a_word_was_killed(launch: Launch, listen: Listen) -> None:
    """Without an EXIT of the agent the code is 137 and the record says why."""
    heard = listen(start(launch, "begin()"))
    assert [ending.code for ending in heard.exits] == [137]
    ending = read_ending(launch.directories[0])
    assert isinstance(ending, Ending)
    assert ending.text == "machine ended"


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("say(HELLO); hear(START); say(FAILED, struct.pack('<Ii', 3, 2) + b'no such program')", "no such program"),
        ("", "ended before its agent was ready"),
    ],
)
def test_a_set_up_that_fails_in_the_guest_is_raised(launch: Launch, agent: str, words: str) -> None:
    """What the agent says failed, or a machine that ends at once, fails the start."""
    directory = launch.directory()
    with pytest.raises(LaunchError, match=words):
        spawn(plan(directory, agent), timeout=20)
    assert isinstance(await_ending(directory, 5), Failure)


def test_a_machine_that_does_not_power_off_is_killed(launch: Launch, listen: Listen) -> None:
    """Five seconds after the program's exit the machine is killed; the exit is the program's."""
    begun = time.monotonic()
    heard = listen(start(launch, "begin(); exit_with(4); time.sleep(3600)"))
    assert [ending.code for ending in heard.exits] == [4]
    assert time.monotonic() - begun > 4.5


def test_further_sessions_have_their_own_streams_and_exits(launch: Launch, listen: Listen) -> None:
    """EXEC opens a session; its frames reach only its client, and its end leaves the instance running."""
    agent = (
        "begin()\n"
        "for code in (5, 6):\n"
        "    _, session, payload = hear(EXEC); say(READY, b'', session); hear(GO); say(STARTED, bytes(4), session)\n"
        "    say(STDOUT, payload, session); exit_with(code, session)\n"
        "say(STDOUT, b'first'); exit_with(0)"
    )
    first = start(launch, agent)
    frame = first.receive(10)
    assert frame is not None
    assert frame.type is Type.STARTED
    for code in (5, 6):
        session = execute(launch)
        session.go()
        heard = listen(session)
        assert (heard.output, [ending.code for ending in heard.exits]) == (b"another plan", [code])
        assert heard.types[0] is Type.READY
    assert listen(first).output == b"first"


def test_a_stalled_client_stops_only_its_own_session(launch: Launch, listen: Listen) -> None:
    """The agent gets no credit for a session whose client does not read; the others go on."""
    agent = (
        "begin(); session = hear(EXEC)[1]; credits = {0: 262144, session: 262144}\n"
        "def pump(number, total):\n"
        "    while total:\n"
        "        while credits[number] < 32768:\n"
        "            _, who, amount = hear(CREDIT); credits[who] += struct.unpack('<I', amount)[0]\n"
        "        say(STDOUT, bytes(32768), number); credits[number] -= 32768; total -= 32768\n"
        "port.settimeout(1)\n"
        "try: pump(session, 1 << 26)\n"
        "except TimeoutError: pass\n"
        "port.settimeout(None)\n"
        "pump(0, 1 << 22); exit_with(0)"
    )
    first = start(launch, agent)
    frame = first.receive(10)
    assert frame is not None
    stalled = execute(launch)
    heard = listen(first)
    stalled.close()
    assert len(heard.output) == 1 << 22
    assert [ending.code for ending in heard.exits] == [0]


def test_input_waits_for_the_agents_credit(launch: Launch, listen: Listen) -> None:
    """At most a window of input is sent before the agent takes it; all of it arrives in the end."""
    agent = (
        "begin(); port.settimeout(1); got = 0\n"
        "try:\n"
        "    while True: got += len(hear(STDIN)[2])\n"
        "except TimeoutError: pass\n"
        "port.settimeout(None); first = got\n"
        "say(CREDIT, struct.pack('<I', got))\n"
        "while (part := hear(STDIN)[2]): got += len(part); say(CREDIT, struct.pack('<I', len(part)))\n"
        "say(STDOUT, f'{first} {got}'.encode()); exit_with(0)"
    )
    channel = start(launch, agent)
    channel.write(bytes(WINDOW * 2))
    channel.end_input()
    assert listen(channel).output == f"{WINDOW} {WINDOW * 2}".encode()


def test_a_client_that_leaves_closes_its_session(launch: Launch, listen: Listen) -> None:
    """The agent hears CLOSE for the session of a client that is gone."""
    agent = "begin(); session = hear(EXEC)[1]; assert hear(CLOSE)[1] == session; exit_with(0, session); exit_with(3)"
    first = start(launch, agent)
    frame = first.receive(10)
    assert frame is not None
    execute(launch).close()
    assert [ending.code for ending in listen(first).exits] == [3]


@pytest.mark.parametrize(
    "rubbish",
    [
        "port.sendall(b'\\xff' * 64)",
        "say(CREDIT, b'\\xff\\xff\\xff\\xff')",
        "say(STARTED)",
        "say(HELLO)",
        "say(START)",
    ],
)
def test_a_guest_that_breaks_the_rules_is_ended(launch: Launch, listen: Listen, rubbish: str) -> None:
    """Malformed frames, output without credit, things said twice: the machine is killed."""
    heard = listen(start(launch, f"begin(); {rubbish}; time.sleep(60)"))
    assert [ending.code for ending in heard.exits] == [137]


def test_output_without_credit_ends_the_machine(launch: Launch) -> None:
    """A guest that sends more than its window while a client is stalled is killed; nothing grows without bound."""
    with start(launch, "begin(); [say(STDOUT, bytes(65536)) for _ in range(99)]; time.sleep(60)"):
        ending = await_ending(launch.directories[0], 20)
    assert isinstance(ending, Ending)
    assert ending.code == 137


def test_an_agent_that_never_reads_ends_the_machine(launch: Launch, listen: Listen) -> None:
    """A guest that has every byte credited and takes no credit is killed: what waits for it does not grow."""
    agent = "begin(); [say(STDOUT, b'x') for _ in range(50_000)]\nwhile True: say(STDOUT, bytes(60_000))"
    directory = launch.directory()
    operations = [Monitor(str(directory)), *plan(directory, agent)[1:]]  # without a log: it would be a large one
    channel = spawn(operations, timeout=20)
    channel.attach(stdout=False, stderr=False)
    channel.go()
    assert [ending.code for ending in listen(channel).exits] == [137]


def test_kill_ends_a_machine_whose_agent_does_not_answer(launch: Launch) -> None:
    """SIGKILL to an instance that still boots kills the machine."""
    directory = launch.directory()

    def kill() -> None:
        with Channel.connect(directory / "monitor.sock") as channel:
            channel.attach()
            channel.signal(signal.SIGKILL)
            while channel.receive(5) is not None:
                pass

    timer = threading.Timer(0.5, kill)
    timer.start()
    with pytest.raises(LaunchError, match="before its agent was ready"):
        spawn(plan(directory, "time.sleep(60)"), timeout=20)
    timer.join()
