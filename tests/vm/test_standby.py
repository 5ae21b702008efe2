"""Spare machines: an instance gets one that is up already, and nothing of it tells that it was nobody's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conformance.harness import Harness
from tests.conftest import Daemon
from tests.vm.test_fork import IDENTITY

from trivet.hypervisor.qmp import Qmp, QmpUnavailable
from trivet.isolation import fork, standby
from trivet.isolation.local import group
from trivet.isolation.vm import VmDriver
from trivet.launch.monitor import read_process

pytestmark = pytest.mark.vm

IMAGE = "busybox:test"


@pytest.fixture(scope="module")
def ready(driver: VmDriver) -> Iterator[VmDriver]:
    """A driver that keeps a machine ready."""
    made = VmDriver(driver.cache, spares=1)
    yield made
    made.leave()


def waiting(driver: VmDriver) -> Path:
    """Wait for a spare; its run directory."""
    deadline = time.monotonic() + 60
    while not (found := driver.spares()):
        assert time.monotonic() < deadline, "no spare machine is made"
        time.sleep(0.02)
    return Path(found[0])


def pid_of(place: Path) -> int:
    """Tell which process a machine is."""
    process = read_process(place)
    assert process
    return process.pid


def ends(pid: int) -> None:
    """Wait until a process has gone."""
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"{pid} lives"
        time.sleep(0.05)


def test_a_spare_becomes_the_instance(ready: VmDriver, make: Callable[[VmDriver], Harness]) -> None:
    """The next instance of a shape is the machine that waited, with its own drives, names, limits and randomness."""
    results = []
    for number in range(3):
        before = pid_of(waiting(ready)) if number else 0
        harness = make(ready)
        session = harness.start(
            "sh",
            "-c",
            f"{IDENTITY}; hostname; echo {number} > /x; cat /x; read go",
            stdin=True,
            hostname=f"h{number}",
            pids=60,
        )
        session.until(f"\n{number}\n".encode())
        assert fork.noted(harness.plan) == fork.FORKED
        assert not before or harness.status().pid == before
        assert harness.status().pid in group(harness.plan).processes()
        assert harness.exec("cat", "/sys/fs/cgroup/pids.max").wait().text == "60"
        session.channel.write(b"\n")
        results.append(session.wait().lines)
    seen = [word for lines in results for word in lines[:3]]
    assert len(set(seen)) == 9, "something random came twice"
    assert [lines[4:] for lines in results] == [[f"h{number}", str(number)] for number in range(3)]


def test_a_spare_ends_with_its_maker(ready: VmDriver, make: Callable[[VmDriver], Harness]) -> None:
    """A machine that waits for an engine that has died goes by itself, and what is left of it with the next one."""
    harness = make(ready)
    harness.run("true")
    place = waiting(ready)
    pid = pid_of(place)
    (left,) = (
        each for waits in ready._nursery.pool._waiting.values() for each in waits
    )  # as an engine's end closes it
    left.channel.close()  # as an engine's end closes it
    ends(pid)
    assert harness.run("true").code == 0, "a start after it, too"
    standby.sweep(Path(harness.plan.directory).parent, str(Path(harness.plan.cgroup).parent))
    assert not list(place.parent.glob(f"{standby.PREFIX}*/pid"))
    ready._nursery.pool.drop()


def test_a_spare_is_no_excuse(ready: VmDriver, make: Callable[[VmDriver], Harness], tmp_path: Path) -> None:
    """What can't be executed or mounted is told as it is without a spare, and the next start succeeds."""
    harness = make(ready)
    harness.run("true")
    waiting(ready)
    with pytest.raises(Exception, match="/nothing not found"):
        harness.run("/nothing")
    waiting(ready)
    broken = tmp_path / "broken"
    broken.write_bytes(bytes(1 << 20))
    with pytest.raises(Exception, match=f"cannot mount drive {broken}"):
        harness.run("true", root=type(harness.root)(form="drive", lowers=(str(broken),), upper=harness.root.upper))
    assert harness.run("true").code == 0


def test_memory_is_for_those_who_work() -> None:
    """No machine is kept where less than a tenth of the memory would be left."""
    assert standby.kept(1 << 30, lambda: (32 << 30, 6 << 30))
    assert not standby.kept(1 << 30, lambda: (32 << 30, 4 << 30))


@pytest.fixture
def keeping(tmp_path: Path, short_path: Path) -> Iterator[Daemon]:
    """An engine that keeps a machine ready, and has an image."""
    engine = Daemon(tmp_path / "root", short_path, "--spares=1")
    engine.start()
    try:
        engine.ok("import", "-q", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
        yield engine
    finally:
        engine.clean()


def waits(engine: Daemon) -> int:
    """Wait until the machine that an engine keeps has stopped; which process it is."""
    deadline = time.monotonic() + 60
    while True:
        for socket in engine.run.glob("i/spare-*/qmp.sock"):
            with suppress(QmpUnavailable, OSError), Qmp(socket) as qmp:
                if qmp.status() == "paused":
                    return pid_of(socket.parent)
        assert time.monotonic() < deadline, engine.log.read_text()[-2000:]
        time.sleep(0.1)


def test_an_engine_keeps_one(keeping: Daemon) -> None:
    """It is found by its address on a network, is saved and goes back; one that waits ends with a killed engine."""
    keeping.ok("run", "-d", "--isolation", "vm", "--name", "one", IMAGE, "sleep", "600")
    script = "echo hello > /index.html; exec httpd -f -p 80"
    for _ in range(5):  # it may have stopped to be frozen first
        pid = waits(keeping)
        keeping.ok("run", "-d", "--isolation", "vm", "--name", "two", IMAGE, "sh", "-c", script)
        if keeping.client.instances.get("two").pid == pid:
            break
        keeping.ok("rm", "-f", "two")
    assert keeping.client.instances.get("two").pid == pid
    address = keeping.ok("exec", "two", "sh", "-c", "ip -4 -o addr show eth0").split()[3].split("/")[0]
    ask = ("exec", "one", "wget", "-qO-", f"http://{address}/")
    assert keeping.ok(*ask) == "hello"
    keeping.ok("snapshot", "two", "before")
    keeping.ok("exec", "two", "sh", "-c", "echo changed > /index.html")
    keeping.ok("snapshot", "revert", "two", "before")
    assert keeping.ok(*ask) == "hello"
    pid = waits(keeping)
    keeping.kill()
    ends(pid)
    keeping.start()
    assert not list(keeping.run.glob("i/spare-*"))
    assert keeping.ok("run", "--rm", "--isolation", "vm", IMAGE, "echo", "again") == "again"
    assert keeping.ok(*ask) == "hello"
