"""The reference example of over-provisioning with real instances, and what happens at its edges."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest
from demo.overbooked.scenario import LEVELS, Part, play
from demo.overbooked.world import MEBIBYTE, World, until, world

from trivet.base.error import Exhausted
from trivet.client.schema_capacity import PlanRequest

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("musl-gcc"), pytest.mark.needs("busybox")]


def test_the_reference_example_holds() -> None:
    """36 of 32 promised: the database gets its 12; when all rise nobody dies, and all is explained."""
    seen = play(LEVELS["local"], together=6)
    assert {"warn", "take", "give"} <= {decision.word for decision in seen.decisions}


def test_what_does_not_fit_is_refused_before_it_starts() -> None:
    """Minimums must fit, maximums by the ratio; the error has the numbers, and the journal has the decision."""
    with world(512, "--memory-ratio=2") as host:
        host.begin("first", "container", 300, 400, 1024)
        with pytest.raises(
            Exhausted, match=r"its minimum of 300 MiB and the 300 MiB kept for others are more than the"
        ):
            host.begin("second", "process", 300, 400, 1024)
        with pytest.raises(Exhausted, match=r"its limit of 700 MiB and the 400 MiB promised to others are more than 2"):
            host.begin("third", "container", 10, 700, 1024)
        assert {each.status for each in host.client.instances.list(all=True)} == {"running", "created"}
        host.begin("fourth", "container", 10, 500, 1024)
        words = [(each.word, each.name) for each in host.client.capacity.decisions()]
        assert words == [("refuse", "second"), ("refuse", "third"), ("warn", "fourth")]
        shown = json.loads(host.trivet("capacity", "--json"))
        assert (shown["promised"], shown["kept"]) == (900 * MEBIBYTE, 310 * MEBIBYTE)
        assert "refuse second" in host.trivet("capacity", "--explain", "second")
        assert "fourth" in host.trivet("capacity")


def test_what_would_come_of_more_is_told_before() -> None:
    """The plan for two more says of each what starting it says, and starts nothing; the last minutes are drawn."""
    with world(512, "--memory-ratio=2") as host:
        host.begin("there", "container", 100, 400, 1024)
        wish = PlanRequest(memory=300 * MEBIBYTE, memory_reservation=100 * MEBIBYTE, cpus=1.0, count=3)
        found = host.client.capacity.plan(wish)
        assert [(step.word, step.promised // MEBIBYTE) for step in found.steps] == [
            ("warn", 700),
            ("warn", 1000),
            ("refuse", 1000),
        ]
        assert (found.fits, found.endless, found.expected >= 100 * MEBIBYTE) == (2, False, True)
        assert "2 such instances would be let in" in host.trivet("capacity", "plan", "-m", "300m", "-n", "2")
        assert len(host.client.instances.list(all=True)) == 1
        host.begin("second", "container", 100, 300, 1024)
        host.begin("third", "container", 100, 300, 1024)
        with pytest.raises(Exhausted, match=re.escape(found.steps[2].why)):
            host.begin("fourth", "container", 100, 300, 1024)
        until(lambda: len(host.client.capacity.history().moments) >= 2, "nothing is remembered", 60)
        host.want("third", 150)
        until(lambda: host.client.capacity.history().moments[-1].used > 150 * MEBIBYTE, "it is not seen", 60)
        last = host.client.capacity.history().moments[-1]
        assert (last.promised, last.short) == (1000 * MEBIBYTE, False)
        assert "statements about the next 5 minutes" in host.trivet(
            "capacity", "history", "--svg", f"{host.root}/x.svg"
        )
        assert "promised" in (host.root / "x.svg").read_text()


def test_an_engine_that_was_killed_is_replaced() -> None:
    """A program that waits at its bound when the engine is killed is given memory by the next one."""
    with world(256, "--memory-ratio=4") as host:
        for name in ("idle", "busy"):
            host.begin(name, "process", 32, 200, 1024)
        until(lambda: host.shares()["busy"].allotted < 180 * MEBIBYTE, "nobody is bounded", 20)
        host.want_later("busy", 180, seconds=3)
        host.kill()
        time.sleep(6)
        host.start()
        until(lambda: host.used("busy") >= 180, "it does not get its memory", 30)
        assert all(each.status == "running" and not each.out_of_memory for each in host.client.instances.list(all=True))


def test_an_engine_that_ends_bounds_nobody() -> None:
    """After a polite end, what an instance may have is its limit, and the kernel's rules are the usual ones again."""
    with world(256, "--memory-ratio=4") as host:
        for name in ("one", "two"):
            host.begin(name, "container", 32, 200, 1024)
        until(lambda: host.shares()["one"].allotted < 180 * MEBIBYTE, "nobody is bounded", 20)
        host.end()
        assert [host.bound(name) for name in ("one", "two")] == [200 * MEBIBYTE] * 2
        host.start()
        assert [each.status for each in host.client.instances.list(all=True)] == ["running"] * 2


@pytest.mark.vm
@pytest.mark.needs("qemu-system-x86_64")
def test_a_machine_that_hangs_holds_up_nobody() -> None:
    """Memory moves between others while a machine doesn't answer, and nothing is counted on that it has."""
    with world(704, "--memory-ratio=4") as host:
        host.begin("hangs", "vm", 128, 256, 1024)
        for name in ("idle", "busy"):
            host.begin(name, "container", 32, 300, 1024)
        until(lambda: host.shares()["idle"].allotted < 290 * MEBIBYTE, "nobody is bounded", 60)
        machine = host.client.instances.get("hangs").pid
        os.kill(machine, signal.SIGSTOP)
        try:
            host.want("busy", 280)
            until(lambda: host.used("busy") >= 280, "it does not get its memory", 60)
            shares = host.shares()
            assert sum(each.allotted for each in shares.values()) <= 704 * MEBIBYTE
            assert shares["idle"].allotted >= 32 * MEBIBYTE
        finally:
            os.kill(machine, signal.SIGCONT)
        assert host.run("hangs", "sh", "-c", "echo well") == "well\n"


def test_limits_change_while_it_runs() -> None:
    """Minimum, maximum and weight are changed with `update`, and hold from the next round on."""
    with world(256, "--memory-ratio=4") as host:
        host.begin("one", "container", 32, 200, 1024)
        host.begin("two", "container", 32, 200, 1024)
        host.trivet("update", "--memory-reservation=160m", "--cpu-shares=4096", "one")
        until(lambda: host.shares()["one"].allotted >= 160 * MEBIBYTE, "the minimum is not kept", 20)
        found = host.shares()["one"]
        assert (found.minimum, found.maximum, found.weight) == (160 * MEBIBYTE, 200 * MEBIBYTE, 4096)


def test_a_part_of_the_example_is_as_large_as_it_says() -> None:
    """The example promises 36 of 32."""
    for parts in LEVELS.values():
        assert sum(part.maximum for part in parts) * 32 == 36 * 1024
        assert all(isinstance(part, Part) for part in parts)


def test_idle_cache_is_taken() -> None:
    """Page cache an instance doesn't use is given to one that waits."""
    with world(256, "--memory-ratio=4") as host:
        host.begin("reader", "container", 32, 200, 1024)
        host.begin("eater", "container", 32, 200, 1024)
        fill_cache(host, "reader")
        host.want("eater", 180)
        until(lambda: host.used("eater") >= 180, "it does not get the cache's memory", 30)


def fill_cache(host: World, name: str) -> None:
    """Let an instance write a file."""
    host.run(name, "sh", "-c", "i=0; while [ $i -lt 60 ]; do cat /bin/busybox; i=$((i+1)); done > /tmp/file")
    host.run(name, "sh", "-c", "cat /tmp/file > /dev/null")
