"""Frozen machines: those that begin as one are machines of their own, and confined as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.conformance.harness import Harness
from tests.fleet import eventually
from tests.vm.test_fork import IDENTITY
from tests.vm.test_saving import COUNTER, begin
from tests.vm.test_standby import pid_of, waiting

from trivet.hypervisor import memory
from trivet.hypervisor.qmp import Qmp
from trivet.hypervisor.template import MEMORY_NAME
from trivet.isolation import cell, fork, frozen, machine, standby
from trivet.isolation.frozen import Frozen
from trivet.isolation.vm import VmDriver
from trivet.launch.launcher import BINARY

pytestmark = pytest.mark.vm

AT_ONCE = 4
CHUNK = 1 << 20
DEVICES = {"/dev/null", "/dev/urandom"}
SAME = ("Groups", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn", "SigCgt")


@pytest.fixture
def ready(driver: VmDriver) -> Iterator[VmDriver]:
    """A driver that keeps a machine ready."""
    made = VmDriver(driver.cache, spares=1)
    yield made
    made.leave()


def kept(driver: VmDriver) -> dict[str, Frozen]:
    """Wait for a machine to be frozen."""
    found = driver._nursery.pool._freezer._kept
    deadline = time.monotonic() + 60
    while not found:
        assert time.monotonic() < deadline, "no machine is frozen"
        time.sleep(0.02)
    return found


def used_up(driver: VmDriver, make: Callable[[VmDriver], Harness]) -> Harness:
    """Have a machine frozen; the instance that was forked before."""
    first = make(driver)
    first.start("sleep", "600")
    kept(driver)
    return first


def thawed(harness: Harness) -> bool:
    """Tell whether an instance's QEMU began as another one."""
    return Path(f"/proc/{harness.status().pid}/exe").readlink() == Path(cell.THAWING)


def generation(harness: Harness) -> str:
    """Ask QEMU for what tells its guest that it is a copy."""
    with Qmp(Path(harness.plan.directory, machine.QMP)) as qmp:
        return str(qmp.execute("query-vm-generation-id")["guid"])


def status(pid: int) -> dict[str, str]:
    """Read what the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}


def test_those_that_follow_are_machines_of_their_own(ready: VmDriver, make: Callable[[VmDriver], Harness]) -> None:
    """Machines that go on as the same one, at the same time, have nothing random in common, and files of their own."""
    first = used_up(ready, make)
    assert not thawed(first)
    others = [make(ready) for _ in range(AT_ONCE)]
    script = f"{IDENTITY}; hostname; echo $0 > /x; cat /x; read go"

    def told(number: int) -> list[str]:
        session = others[number].start("sh", "-c", script, str(number), stdin=True, hostname=f"h{number}")
        return session.until(f"\n{number}\n".encode()).decode().splitlines()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        said = list(pool.map(told, range(AT_ONCE)))
    assert all(map(thawed, others))
    assert {fork.noted(each.plan) for each in others} == {fork.FORKED}
    seen = [word for lines in said for word in lines[:3]] + [generation(each) for each in (first, *others)]
    assert len(set(seen)) == len(seen), "something random came twice"
    assert [lines[4:] for lines in said] == [[f"h{number}", str(number)] for number in range(AT_ONCE)]
    assert all(abs(time.time() - int(lines[3])) < 60 for lines in said)


def test_a_guest_has_the_memory_it_had(ready: VmDriver, make: Callable[[VmDriver], Harness]) -> None:
    """What those that follow begin with is, byte for byte, what the frozen machine's guest has; zeros, too."""
    used_up(ready, make)
    pool = ready._nursery.pool
    spare = pool._fork(next(iter(pool._wanted.values())))
    pid = pid_of(Path(spare.plan.directory))
    found = frozen._patiently(lambda: frozen.freeze(spare.plan, pid))
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    (line,) = (each for each in maps if MEMORY_NAME in each)
    start, end = (int(word, 16) for word in line.split()[0].split("-"))
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as inside:
        for place in range(0, end - start, CHUNK):
            inside.seek(start + place)
            assert inside.read(CHUNK) == os.pread(found.memory, CHUNK, place), f"at {place:#x}"
    found.close()
    spare.channel.close()
    standby.remove(spare.plan)


def test_they_are_confined_as_it_is(ready: VmDriver, make: Callable[[VmDriver], Harness]) -> None:
    """A thawed QEMU has the same filter, rights and signals as a forked one, and nobody else's file open."""
    first, other = used_up(ready, make), make(ready)
    other.start("sleep", "600")
    assert thawed(other)
    before, after = status(first.status().pid), status(other.status().pid)
    assert {name: after[name] for name in SAME} == {name: before[name] for name in SAME}
    assert after["Seccomp"] == "2"
    assert after["CapEff"] == "0000000000000000"
    assert after["Uid"].split() == [after["Uid"].split()[0]] * 4
    assert after["Uid"] != before["Uid"], "each has a user of its own"
    plan = other.plan
    own = {plan.root.lowers[0], plan.root.upper, f"{plan.directory}/{machine.CONSOLE}"}
    opened = {str(each.readlink()) for each in Path(f"/proc/{other.status().pid}/fd").iterdir()}
    assert {name for name in opened if name[0] == "/"} == own | DEVICES | {f"/memfd:{MEMORY_NAME} (deleted)"}
    root = Path(f"/proc/{other.status().pid}/root")
    assert not (root / "etc/passwd").exists()


def test_it_is_saved_as_any_other(ready: VmDriver, make: Callable[[VmDriver], Harness], tmp_path: Path) -> None:
    """A copy of a machine that went on as a frozen one has what that had in memory and on its drive."""
    used_up(ready, make)
    original, copy = make(ready), make(ready)
    session = original.start("sh", "-c", COUNTER, stdin=True)
    assert thawed(original)
    session.channel.write(b"one\n")
    session.until(b"1 one 1\n")
    ready.save(original.plan, tmp_path / "saved", go_on=True)
    follows = begin(copy, original, tmp_path / "saved")
    for each in (session, follows):
        each.channel.write(b"two\n")
        each.until(b"2 two 2\n")


def test_one_that_is_damaged_is_given_up(ready: VmDriver, make: Callable[[VmDriver], Harness]) -> None:
    """Where the frozen machine can't go on, the next one is forked from the template as ever."""
    used_up(ready, make)
    found = kept(ready)
    key = next(iter(found))
    ready._nursery.pool.drop()
    found[key] = Frozen(memory.make("nothing", 1 << 20), memory.make("nothing", 1 << 20))
    other = make(ready)
    other.start("sleep", "600")
    assert not thawed(other)
    assert fork.noted(other.plan) == fork.FORKED
    assert not found, "it is not tried again"
    assert pid_of(waiting(ready))


def test_what_cannot_be_frozen_goes_on() -> None:
    """A process that isn't understood is left as it was, and the reason is said."""
    bystander = subprocess.Popen(["sh", "-c", "read go; echo $go"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    files = [memory.make("guest"), memory.make("rest")]
    state = Path(f"/proc/{bystander.pid}/stat")
    try:
        eventually(lambda: state.read_text().rpartition(")")[2].split()[0] == "S")  # it reads
        with pytest.raises(frozen.CannotFreeze, match=r"for others to begin as: .*filter of system calls"):
            frozen._run(bystander.pid, "0" * 32, files, ())
        assert bystander.communicate(b"on\n", timeout=60)[0] == b"on\n"
    finally:
        bystander.kill()
        bystander.wait()
        for each in files:
            os.close(each)


def test_what_is_done_beforehand_leaves_nothing(tmp_path: Path) -> None:
    """The program that asks a kernel for this and that comes to its end, and takes with it what it made."""
    shutil.copy(BINARY, tmp_path / "program")
    command = ["chroot", str(tmp_path), "/program", "--exercise"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "done\n")
    assert [each.name for each in tmp_path.iterdir()] == ["program"]
