"""Processors' time where there isn't enough for all: it goes by weight, at every level."""

from __future__ import annotations

import pytest
from demo.overbooked.world import World, until, world

from trivet.client.schema import InstanceRequest, LevelName

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("musl-gcc"), pytest.mark.needs("busybox")]

IMAGE = "overbooked:demo"
WEIGHTS = {"light": 1024, "heavy": 3072}
CPU = "0"
PATIENCE = 120.0
START, WINDOW = 0.5, 6.0  # seconds of processor time: what is left of a start, and what is compared


def begin(host: World, level: LevelName, name: str, weight: int) -> None:
    """Start an instance that uses as much of one processor as it gets."""
    request = InstanceRequest(
        image=IMAGE,
        name=name,
        isolation=level,
        cpu_shares=weight,
        cpuset=CPU,
        command=["sh", "-c", "while :; do :; done"],
    )
    host.client.instances.start(host.client.instances.create(request).id)


def used(host: World) -> dict[str, float]:
    """Read the processor time each has used, in seconds."""
    return {sample.name: sample.cpu_total for sample in host.client.system.stats()}


MACHINE = pytest.param("vm", marks=[pytest.mark.vm, pytest.mark.needs("qemu-system-x86_64")])


@pytest.mark.parametrize("level", ["process", "container", MACHINE])
def test_weights_hold_within_a_tenth(level: LevelName) -> None:
    """Of two that are always busy on one processor, the one with three times the weight gets three times the time."""
    with world(2048, "--cpu-ratio=0") as host:
        for name, weight in WEIGHTS.items():
            begin(host, level, name, weight)
        until(lambda: min(used(host).values()) > START, "they get no processor time", PATIENCE)
        before = used(host)
        until(lambda: sum(used(host).values()) > sum(before.values()) + WINDOW, "they get too little time", PATIENCE)
        after = used(host)
        light, heavy = (after[name] - before[name] for name in WEIGHTS)
        assert heavy / light == pytest.approx(3, rel=0.1), (light, heavy)
        assert host.shares()["light"].stolen > host.shares()["heavy"].stolen
