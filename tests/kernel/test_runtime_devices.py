"""Device rules of version 2 control groups, decided by the real kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.kernel import cgroup
from trivet.launch.operation import DeviceFilter, Exec, Spawn
from trivet.launch.spawn import run
from trivet.oci.runtime import DeviceRule
from trivet.runtime import device, devicefilter

UNIFIED = next((h.mount for h in cgroup.detect().hierarchies if h.version == 2), "")


@pytest.fixture
def group() -> Iterator[Path]:
    """A version 2 group of the test's own; also where version 2 has no controllers it asks device filters."""
    if not UNIFIED:
        pytest.skip("no version 2 control groups")
    made = Path(UNIFIED, f"trivet-devices-{os.getpid()}")
    made.mkdir()
    yield made
    made.rmdir()


def opened(group: Path, rules: tuple[DeviceRule, ...]) -> dict[str, bool]:
    """Tell which of these can be opened below the rules."""
    tries = {
        "null r": "true </dev/null",
        "null w": "true >/dev/null",
        "null rw": "true <>/dev/null",
        "zero r": "true </dev/zero",
        "zero w": "true >/dev/zero",
        "kmsg r": "true </dev/kmsg",
    }
    script = "; ".join(f"({shell}) 2>&- && echo '{name}'" for name, shell in tries.items())
    steps = [
        DeviceFilter(str(group), devicefilter.program(rules)),
        Spawn(cgroup=str(group)),
        Exec(("/bin/sh", "-c", f"{script}; true")),
    ]
    done = run(list(steps))
    assert done.code == 0, done
    said = done.output.decode().splitlines()
    return {name: name in said for name in tries}


EVERYTHING = {"null r", "null w", "null rw", "zero r", "zero w", "kmsg r"}
DENY = DeviceRule(allow=False)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((), EVERYTHING),
        ((DENY,), set()),
        ((DENY, DeviceRule(allow=True)), EVERYTHING),
        ((DENY, DeviceRule(allow=True, type="c", major=1, minor=3)), {"null r", "null w", "null rw"}),
        ((DENY, DeviceRule(allow=True, type="c", major=1, minor=3, access="r")), {"null r"}),
        ((DENY, DeviceRule(allow=True, type="b", major=1, minor=3)), set()),
        ((DENY, DeviceRule(allow=True, type="c", major=1)), EVERYTHING),
        ((DENY, DeviceRule(allow=True, type="c", major=1), DeviceRule(allow=False, type="c", major=1, minor=5)),
         EVERYTHING - {"zero r", "zero w"}),
        ((DeviceRule(allow=False, type="c", major=1, minor=3, access="w"),), EVERYTHING - {"null w", "null rw"}),
        (device.RULES, {"null r", "null w", "null rw", "zero r", "zero w"}),
    ],
)  # fmt: skip
def test_rules(group: Path, rules: tuple[DeviceRule, ...], expected: set[str]) -> None:
    """The last rule that matches counts; what a rule doesn't cover whole it doesn't allow."""
    can = {name for name, there in opened(group, rules).items() if there}
    assert can == expected
