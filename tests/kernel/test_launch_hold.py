"""A conversation between monitor and guest agent that is held while the machine is saved, and goes on in a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.kernel.test_launch_relay import AGENT, start

from trivet.launch.channel import Channel
from trivet.launch.frame import Type
from trivet.launch.monitor import connect
from trivet.launch.operation import Exec, Monitor, Operation, Relay, Spawn
from trivet.launch.spawn import LaunchError, spawn

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.conftest import Launch, Listen

pytestmark = pytest.mark.needs("root")

WORDS = "CALL, HOST, HOLD, RELEASE, HELD, ADOPTED = 10, 11, 12, 13, 0x49, 0x4a\n"


def holder(launch: Launch) -> Channel:
    """Hold the conversation; nothing is under way when this returns."""
    channel = connect(launch.directories[0])
    assert channel is not None
    channel.send(Type.HOLD)
    frame = channel.receive(10)
    assert frame is not None
    assert frame.type is Type.HELD
    return channel


@pytest.mark.parametrize("leaving", [False, True], ids=["released", "abandoned"])
def test_while_it_is_held_other_clients_wait(launch: Launch, listen: Listen, leaving: bool) -> None:
    """Input reaches the agent only behind RELEASE, which is said as well when whoever held it has gone."""
    agent = f"{WORDS}begin(); hear(HOLD); say(HELD); said = [hear() for _ in range(2)]\n"
    agent += "say(STDOUT, repr([(kind, payload) for kind, _, payload in said]).encode()); exit_with(0)"
    channel = start(launch, agent)
    begun = channel.receive(10)
    assert begun is not None
    assert begun.type is Type.STARTED
    held = holder(launch)
    channel.write(b"later")
    with pytest.raises(TimeoutError):
        channel.receive(0.3)
    if leaving:
        held.close()
    else:
        held.send(Type.RELEASE)
    assert listen(channel).output == b"[(13, b''), (3, b'later')]"


def test_only_a_running_instance_can_be_held(launch: Launch) -> None:
    """Before its program has begun the monitor refuses."""
    directory = launch.directory()
    agent = f"{WORDS}say(HELLO, b'{{}}'); hear(START); say(READY); hear(GO)"
    with spawn(operations(directory, agent, 0, b"plan"), timeout=20):
        channel = connect(directory)
        assert channel is not None
        channel.send(Type.HOLD)
        frame = channel.receive(10)
        assert frame is not None
        assert frame.type is Type.FAILED


def operations(directory: Path, agent: str, begins: int, payload: bytes) -> list[Operation]:
    """A monitor whose child is the agent, at its beginning or as a copy."""
    python = Exec(("/usr/bin/python3", "-c", AGENT + agent), ("PATH=/usr/bin:/bin",))
    return [Monitor(str(directory), str(directory / "log")), Relay(7, payload, begins), Spawn(), python]


def test_a_copy_is_changed_before_it_goes_on(launch: Launch, listen: Listen) -> None:
    """Its agent is told the time, makes the changes as a session of its own, and the program goes on at GO."""
    agent = WORDS + (
        "hear(CALL); say(ADOPTED, struct.pack('<I', 5)); hear(HOST)\n"
        "_, session, payload = hear(EXEC); assert session and payload == b'changes'; say(READY, b'', session)\n"
        "assert hear(GO)[1] == session; say(STARTED, bytes(4), session); exit_with(0, session)\n"
        "assert hear(GO)[1] == 0; say(STDOUT, b'went on'); say(CREDIT, struct.pack('<I', 5)); exit_with(3)"
    )
    directory = launch.directory()
    channel = spawn(operations(directory, agent, 2, b"changes"), timeout=20)
    channel.attach()
    channel.go()
    heard = listen(channel)
    assert (heard.output, [ending.code for ending in heard.exits]) == (b"went on", [3])


@pytest.mark.parametrize(
    "agent",
    [
        "hear(CALL); say(HELLO, b'{}'); time.sleep(20)",
        "hear(CALL); say(ADOPTED, struct.pack('<I', 1 << 30)); time.sleep(20)",
        "hear(CALL); say(ADOPTED, bytes(4)); say(ADOPTED, bytes(4)); time.sleep(20)",
        "hear(CALL); say(ADOPTED, bytes(4)); s = hear(EXEC)[1]; say(READY, b'', s); hear(GO); exit_with(1, s); hear()",
    ],
    ids=["begins anew", "has read too much", "twice", "changes fail"],
)
def test_a_copy_that_breaks_the_rules_is_ended(launch: Launch, agent: str) -> None:
    """It never goes on as what it isn't."""
    directory = launch.directory()
    with pytest.raises(LaunchError):
        spawn(operations(directory, WORDS + agent, 2, b"changes"), timeout=20)
