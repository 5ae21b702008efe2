"""PCI devices of the host by class: which is chosen, why one isn't, and what QEMU is shown of it."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import msgspec
import pytest
from tests.unit.test_system import HOST, PLAN

from trivet.base.error import Exhausted, InvalidArgument, Unsupported
from trivet.client.schema_machine import MachineRequest
from trivet.engine.machine.create import check_pci
from trivet.hypervisor.system import command_line
from trivet.isolation import computer, passthrough
from trivet.isolation.passthrough import Given, Places
from trivet.isolation.plan import Plan
from trivet.launch.operation import Bind, Node, Rlimit


class Bus:
    """A tree like the kernel's, of devices that are described here."""

    def __init__(self, home: Path) -> None:
        self.places = Places(home / "devices", home / "groups", home / "vfio")
        for each in (self.places.devices, self.places.groups, self.places.vfio, home / "driver"):
            each.mkdir()
        self.home = home

    def add(self, address: str, kind: str, driver: str = "vfio-pci", group: str = "1", vendor: str = "10de") -> None:
        """Plug a device in."""
        real = self.home / "real" / address
        real.mkdir(parents=True)
        for name, value in (("class", kind), ("vendor", vendor), ("device", "1eb8")):
            (real / name).write_text(f"0x{value}\n")
        members = self.places.groups / group / "devices"
        members.mkdir(parents=True, exist_ok=True)
        (real / "iommu_group").symlink_to(self.places.groups / group)
        if driver:
            (real / "driver").symlink_to(self.home / "driver" / driver)
        for place in (self.places.devices, members):
            (place / address).symlink_to(real)
        (self.places.vfio / "vfio").touch()
        (self.places.vfio / group).touch()


@pytest.fixture
def bus(tmp_path: Path) -> Bus:
    """A bus without devices."""
    (tmp_path / "bus").mkdir()
    return Bus(tmp_path / "bus")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A machine's plan with a run directory."""
    return machine(tmp_path, "web")


def machine(home: Path, name: str) -> Plan:
    """Plan one of several machines."""
    (home / "i" / name).mkdir(parents=True)
    return msgspec.structs.replace(PLAN, name=name, directory=str(home / "i" / name))


def test_a_free_one_of_the_class_is_chosen(bus: Bus, plan: Plan) -> None:
    """Class, vendor and device are heeded, a bridge in the group is no obstacle, and no device is given twice."""
    bus.add("0000:00:1c.0", "060400", "pcieport", "7")
    bus.add("0000:01:00.0", "030000", group="7")
    bus.add("0000:02:00.0", "020000", group="2", vendor="8086")
    bus.add("0000:03:00.0", "020000", group="3")
    found = passthrough.choose(plan, ("gpu", "network:10de:1eb8", "network"), bus.places)
    assert [each.address for each in found] == ["0000:01:00.0", "0000:03:00.0", "0000:02:00.0"]
    assert [each.group for each in found] == ["7", "3", "2"]


def test_what_one_machine_has_another_is_not_given(bus: Bus, plan: Plan, tmp_path: Path) -> None:
    """Neither the device nor one that can't be told apart from it; with the run directory it is free again."""
    bus.add("0000:01:00.0", "030000")
    bus.add("0000:01:00.1", "040300")
    other = machine(tmp_path, "other")
    passthrough.choose(plan, ("gpu",), bus.places)
    with pytest.raises(Exhausted, match=r"class gpu: 0000:01:00\.0 is given to another machine"):
        passthrough.choose(other, ("gpu",), bus.places)
    with pytest.raises(Exhausted, match=r"0000:01:00\.1 can't be told apart from 0000:01:00\.0 \(IOMMU group 1\)"):
        passthrough.choose(other, ("audio",), bus.places)
    Path(plan.directory, passthrough.MARK).unlink()
    assert passthrough.choose(other, ("gpu", "audio"), bus.places)


@pytest.mark.parametrize(
    ("driver", "neighbour", "complaint"),
    [
        ("nvidia", "", "0000:01:00.0 is used by this host (driver nvidia)"),
        ("", "", "0000:01:00.0 is not bound to vfio-pci"),
        ("vfio-pci", "snd", "apart from 0000:01:00.1 (IOMMU group 1), which this host uses (driver snd)"),
    ],
)
def test_what_the_host_uses_stays_the_hosts(bus: Bus, plan: Plan, driver: str, neighbour: str, complaint: str) -> None:
    """A device with a driver of the host's, or in a group with one, is refused by its address and the driver's name."""
    bus.add("0000:01:00.0", "030000", driver)
    if neighbour:
        bus.add("0000:01:00.1", "040300", neighbour)
    with pytest.raises(Exhausted) as raised:
        passthrough.choose(plan, ("gpu",), bus.places)
    assert complaint in str(raised.value)


def test_a_host_that_cannot_is_told_what_it_lacks(bus: Bus, plan: Plan) -> None:
    """Without an IOMMU, without VFIO, without such a device: each is another sentence."""
    with pytest.raises(Unsupported, match="has no IOMMU in use"):
        passthrough.choose(plan, ("gpu",), bus.places)
    bus.add("0000:02:00.0", "010802")
    with pytest.raises(Exhausted, match="a device of class gpu: the host has none"):
        passthrough.choose(plan, ("gpu",), bus.places)
    (bus.places.vfio / "vfio").unlink()
    with pytest.raises(Unsupported, match="VFIO is not there"):
        passthrough.choose(plan, ("nvme",), bus.places)
    assert passthrough.choose(plan, (), bus.places) == ()


@pytest.mark.parametrize("wish", ["", "gpus", "gpu:", "gpu:10DE", "gpu:10de:1", "0000:01:00.0", "gpu\n", "../x"])
def test_what_is_no_class_is_refused(wish: str) -> None:
    """Only known classes, and numbers as the kernel spells them."""
    with pytest.raises(InvalidArgument, match="is no class of PCI devices"):
        check_pci([wish])


def test_no_more_than_there_are_slots() -> None:
    """A ninth is refused."""
    check_pci(["nvme"] * 8)
    with pytest.raises(InvalidArgument, match="at most 8"):
        check_pci(MachineRequest(pci=["nvme"] * 9).pci)


def test_qemu_is_told_the_address_and_shown_nothing_else(tmp_path: Path) -> None:
    """It has a slot of its own, nodes that only its user opens, its directory in /sys, and memory it may lock."""
    given = (Given("0000:01:00.0", "null", "/sys/devices/x"), Given("0000:01:00.1", "null", "/sys/devices/y"))
    words = command_line(computer.system(PLAN, msgspec.structs.replace(HOST, given=given)))
    assert "vfio-pci,host=0000:01:00.0,bus=given1" in words
    assert "vfio-pci,host=0000:01:00.1,bus=given2" in words
    assert "pcie-root-port,id=given1,chassis=11" in words
    assert "vfio" not in " ".join(command_line(computer.system(PLAN, HOST)))
    for name in ("vfio", "null"):
        (tmp_path / name).symlink_to("/dev/null")
    steps = passthrough.shown(given, 1234, 1 << 30, Places(vfio=tmp_path))
    nodes = [step for step in steps if isinstance(step, Node)]
    null = Path("/dev/null").stat().st_rdev
    assert [(node.path, node.uid, node.mode & 0o777) for node in nodes] == [
        ("/dev/vfio/vfio", 1234, 0o600),
        ("/dev/vfio/null", 1234, 0o600),
    ]
    assert (nodes[1].major, nodes[1].minor) == (os.major(null), os.minor(null))
    assert [step.target for step in steps if isinstance(step, Bind)] == [
        f"/sys/bus/pci/devices/{each.address}" for each in given
    ]
    assert Rlimit(resource.RLIMIT_MEMLOCK, 2 << 30, 2 << 30) in steps
    assert passthrough.shown((), 1234, 1 << 30) == []
