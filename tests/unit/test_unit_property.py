"""Limits, devices and annotations as properties of a systemd unit."""

from __future__ import annotations

from typing import Any

import pytest

from trivet.kernel.cgroup_record import DeviceRule, Resources
from trivet.runtime import property as properties
from trivet.runtime import scope

INFINITY = (1 << 64) - 1


def test_limits_have_the_words_of_their_version() -> None:
    """What systemd calls a limit depends on the version of control groups."""
    limits = Resources(memory=1 << 20, swap=3 << 20, shares=1024, quota=33333, cpus="0,2-3", pids=-1, weight=1000)
    new = dict(properties.limits(limits, old=False))
    assert (new["MemoryMax"], new["MemorySwapMax"]) == (("t", 1 << 20), ("t", 2 << 20))
    assert (new["CPUWeight"], new["CPUQuotaPerSecUSec"]) == (("t", 39), ("t", 340000))
    assert (new["AllowedCPUs"], new["TasksMax"], new["IOWeight"]) == (("ay", [13]), ("t", INFINITY), ("t", 10000))
    old = dict(properties.limits(limits, old=True))
    assert old["MemoryLimit"] == ("t", 1 << 20)
    assert (old["CPUShares"], old["BlockIOWeight"]) == (("t", 1024), ("t", 1000))
    assert not {"MemoryMax", "CPUWeight", "AllowedCPUs"} & set(old)


def test_devices_that_are_allowed_after_all_was_forbidden() -> None:
    """A list of allowed devices is systemd's too; any other is left to our own filter."""
    none = DeviceRule(allow=False)
    null = DeviceRule(allow=True, type="c", major=1, minor=3)
    blocks = DeviceRule(allow=True, type="b", access="m")
    found = dict(properties.devices([none, null, blocks]))
    assert found["DevicePolicy"] == ("s", "strict")
    assert found["DeviceAllow"] == ("a(ss)", [("/dev/char/1:3", "rwm"), ("block-*", "m")])
    auto: list[properties.Property] = [("DevicePolicy", ("s", "auto"))]
    assert properties.devices([none, null, DeviceRule(allow=False, type="c", major=1, minor=3)]) == auto
    assert properties.devices([none, DeviceRule(allow=True)]) == auto


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("TimeoutStopUSec", "uint64 5000000", ("TimeoutStopUSec", ("t", 5000000))),
        ("TimeoutStopSec", "1.5", ("TimeoutStopUSec", ("t", 1500000))),
        ("CollectMode", "'inactive-or-failed'", ("CollectMode", ("s", "inactive-or-failed"))),
        ("SendSIGHUP", "true", ("SendSIGHUP", ("b", True))),
        ("After", "['a.service', \"b.service\"]", ("After", ("as", ["a.service", "b.service"]))),
        ("After", "@as []", ("After", ("as", []))),
    ],
)
def test_annotations(name: str, text: str, value: Any) -> None:
    """An annotation's text is a value in GVariant's format."""
    assert properties.annotated({properties.PREFIX + name: text, "other": "x"}) == [value]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TimeoutStopUSec", "soon"),
        ("TimeoutStopSec", "'5'"),
        ("a b", "true"),
        ("After", "[1, 2]"),
        ("After", "{'a': 1}"),
        ("After", "uint64 'x'"),
        ("After", "@a{sv} 'x'"),
        ("After", "__import__('os')"),
        ("After", "[" * 100000),
        ("TasksMax", "uint64 -1"),
        ("TasksMax", "5000000000"),
    ],
)
def test_annotations_that_are_none(name: str, text: str) -> None:
    """Anything else is refused by its name."""
    with pytest.raises(properties.UnknownValue, match=r"org\.systemd\.property"):
        properties.annotated({properties.PREFIX + name: text})


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", ("trivet-web.scope", "system.slice/trivet-web.scope")),
        ("a-b-c.slice:x:y", ("x-y.scope", "a.slice/a-b.slice/a-b-c.slice/x-y.scope")),
        ("-.slice:x:y", ("x-y.scope", "x-y.scope")),
        ("a.slice::y", ("y.scope", "a.slice/y.scope")),
        (":x:my-own.slice", ("my-own.slice", "my.slice/my-own.slice")),
    ],
)
def test_places(asked: str, found: tuple[str, str]) -> None:
    """slice:prefix:name is a unit and the path of its control group."""
    assert scope.place(asked, "web", user=False) == found


@pytest.mark.parametrize("asked", ["/a/b", "a:b", "a.slice:x:", "../a.slice:x:y", "a.slice:x:../y", "a-.slice:x:y"])
def test_no_places(asked: str) -> None:
    """What is no unit's name is refused."""
    with pytest.raises(scope.NotAUnit):
        scope.place(asked, "web", user=False)
