"""Networks of a machine made from an image that come and go while its program runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import msgspec
import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.runtime import until

from trivet.engine.instance.model import InstanceRecord
from trivet.store.record import Records

pytestmark = [pytest.mark.vm, pytest.mark.needs("root", "qemu-system-x86_64")]
NETWORKS = ("front", "back", "more0", "more1", "more2")
SERVE = "mkdir /www; echo here >/www/index.html; exec httpd -f -h /www"
DEFAULT = "ip route | grep ^default | cut -d' ' -f3-5"


@pytest.fixture(scope="module")
def nets(daemon: Daemon) -> Iterator[Daemon]:
    """An engine with an image, networks, and a container on one of them that the machines look for."""
    daemon.ok("import", "-q", "-c", 'CMD ["sh"]', "-", "plug:1", input=busybox_tar())
    for name in NETWORKS:
        daemon.ok("network", "create", "--ipv6", name)
    daemon.ok("run", "-d", "--init", "--name", "peer", "--network", "back", "plug:1", "sh", "-c", SERVE)
    yield daemon
    daemon.ok("rm", "-f", "peer")
    for name in NETWORKS:
        daemon.ok("network", "rm", name)
    daemon.ok("rmi", "plug:1")


@pytest.fixture
def wired(nets: Daemon) -> Iterator[str]:
    """A machine whose program runs, on one network."""
    nets.ok(
        "run", "-d", "--init", "--name", "wired", "--isolation", "vm", "--network", "front", "plug:1", "sleep", "6000"
    )
    yield "wired"
    for each in nets.client.instances.list(all=True):
        if each.name.startswith("wired"):
            nets.ok("rm", "-f", each.name)


def sh(nets: Daemon, script: str, name: str = "wired") -> str:
    """Ask a machine's shell."""
    return nets.ok("exec", name, "sh", "-c", script)


def interfaces(nets: Daemon, name: str = "wired") -> list[str]:
    """Ask a machine which interfaces it has."""
    return sh(nets, "ls /sys/class/net", name).split()


def reaches(nets: Daemon, name: str = "wired") -> None:
    """See a machine find a neighbour by its name, and reach it at each of its addresses."""
    four, six = (address.partition("/")[0] for address in shown(nets, "peer")["back"])
    found = sh(nets, "nslookup peer", name)
    assert four in found
    assert six in found
    for host in (four, f"[{six}]"):
        assert sh(nets, f"timeout 30 wget -q -O - http://{host}/", name) == "here"


def shown(nets: Daemon, name: str = "wired") -> dict[str, tuple[str, ...]]:
    """Give addresses by network, as the engine tells them."""
    return {use.network: tuple(use.addresses) for use in nets.client.instances.get(name).networks}


def test_a_network_comes_and_goes(nets: Daemon, wired: str) -> None:
    """The guest has interface, addresses, route and names at once, and not any more when it is taken away."""
    assert interfaces(nets) == ["eth0", "lo"]
    nets.ok("network", "connect", "back", wired)
    assert interfaces(nets) == ["eth0", "eth1", "lo"]
    reaches(nets)
    inside = sh(nets, "ip addr show eth1")
    assert all(address in inside for address in shown(nets)["back"])
    gateway = shown(nets)["front"][0].rpartition(".")[0] + ".1"
    assert sh(nets, DEFAULT).split()[:3] == [gateway, "dev", "eth0"]
    nets.ok("network", "disconnect", "front", wired)
    assert interfaces(nets) == ["eth1", "lo"]
    gateway = shown(nets)["back"][0].rpartition(".")[0] + ".1"
    assert sh(nets, DEFAULT).split()[:3] == [gateway, "dev", "eth1"]
    assert list(shown(nets)) == ["back"]
    assert f"{shown(nets)['back'][0].partition('/')[0]}\t" in sh(nets, "cat /etc/hosts")
    reaches(nets)
    assert "is not connected" in nets.trivet("network", "disconnect", "front", wired).stderr.decode()
    nets.ok("network", "disconnect", "back", wired)
    assert interfaces(nets) == ["lo"]
    nets.ok("network", "connect", "--gw-priority", "5", "back", wired)
    reaches(nets)
    nets.ok("restart", "-t", "0", wired)
    reaches(nets)
    assert list(shown(nets)) == ["back"]


def test_what_the_instance_has_changed_stays(nets: Daemon, wired: str) -> None:
    """A file of names that was written to inside is the instance's, also when its networks change; others follow."""
    sh(nets, "echo 192.0.2.1 mine >>/etc/hosts")
    before = sh(nets, "cat /etc/hosts")
    nets.ok("network", "connect", "back", wired)
    nets.ok("network", "disconnect", "front", wired)
    assert sh(nets, "cat /etc/hosts") == before


def test_four_can_come_and_go(nets: Daemon, wired: str) -> None:
    """A fifth is refused, nothing of it is left, and what makes room takes its place."""
    for name in ("back", "more0", "more1"):
        nets.ok("network", "connect", name, wired)
    assert interfaces(nets) == ["eth0", "eth1", "eth2", "eth3", "lo"]
    refused = nets.trivet("network", "connect", "more2", wired)
    assert "has all 4 interfaces" in refused.stderr.decode()
    assert nets.client.networks.get("more2").members == {}
    nets.ok("network", "disconnect", "more0", wired)
    nets.ok("network", "connect", "more2", wired)
    assert interfaces(nets) == ["eth0", "eth1", "eth2", "eth3", "lo"]
    assert "a network in the middle was taken" in nets.trivet("snapshot", wired, "gap").stderr.decode()
    nets.ok("restart", "-t", "0", wired)
    assert interfaces(nets) == ["eth0", "eth1", "eth2", "eth3", "lo"]
    reaches(nets)


def test_a_fifth_that_was_there_stays(nets: Daemon, wired: str) -> None:
    """A machine that is started with five networks has them, and keeps the fifth, as the refusal says."""
    nets.ok("stop", "-t", "0", wired)
    for name in NETWORKS[1:]:
        nets.ok("network", "connect", name, wired)
    nets.ok("start", wired)
    assert interfaces(nets) == ["eth0", "eth1", "eth2", "eth3", "eth4", "lo"]
    reaches(nets)
    refused = nets.trivet("network", "disconnect", "more2", wired)
    assert "was there when it was switched on and cannot be unplugged" in refused.stderr.decode()
    assert list(shown(nets)) == list(NETWORKS)


def test_a_machine_without_slots_says_so(nets: Daemon, wired: str) -> None:
    """One that an older trivet has started is not asked for what it hasn't got, and has it after a restart."""
    (shape,) = nets.run.glob(f"i/{nets.client.instances.get(wired).id[:12]}*/shape")
    shape.write_text(" ".join(shape.read_text().split()[:2]))
    refused = nets.trivet("network", "connect", "back", wired)
    assert "it was started without slots for them" in refused.stderr.decode()
    assert list(shown(nets)) == ["front"]
    assert "wired" not in nets.client.networks.get("back").members
    nets.ok("restart", "-t", "0", wired)
    nets.ok("network", "connect", "back", wired)
    reaches(nets)


def test_it_outlives_the_engine(nets: Daemon, wired: str) -> None:
    """What was plugged in carries under the next engine, which takes it away when it is told to."""
    nets.ok("network", "connect", "back", wired)
    nets.kill()
    nets.start()
    reaches(nets)
    nets.ok("network", "disconnect", "back", wired)
    assert interfaces(nets) == ["eth0", "lo"]
    assert nets.client.system.check() == []


def test_an_engine_killed_before_it_was_recorded_takes_it_back(nets: Daemon, wired: str) -> None:
    """What was plugged in, and no record tells of, is taken from the guest by the next engine, the route with it."""
    nets.ok("network", "connect", "--gw-priority", "5", "back", wired)
    assert "eth1" in sh(nets, DEFAULT)
    nets.kill()
    with closing(Records(nets.root / "record.db")) as records:
        table = records.table("instance", InstanceRecord)
        record = next(each for each in table.all() if each.name == wired)
        uses = tuple(use for use in record.plan.attachments if use.network != "back")
        wishes = [wish for wish in record.request.networks if wish.network != "back"]
        plan = msgspec.structs.replace(record.plan, attachments=uses)
        request = msgspec.structs.replace(record.request, networks=wishes)
        table.update(record.id, record.change(plan=plan, request=request))
    nets.start()
    assert interfaces(nets) == ["eth0", "lo"]
    assert "eth0" in sh(nets, DEFAULT)
    assert nets.client.system.check() == []
    nets.ok("network", "connect", "back", wired)
    reaches(nets)
    assert interfaces(nets) == ["eth0", "eth1", "lo"]


def test_it_is_saved_and_copied_with_what_was_plugged_in(nets: Daemon, wired: str) -> None:
    """A snapshot with memory, and a clone of the running machine, go on with both interfaces, each with its own."""
    nets.ok("network", "connect", "back", wired)
    sh(nets, "echo kept >/dev/shm/word")
    nets.ok("snapshot", wired, "both")
    nets.ok("clone", wired, "--name", "wired-two")
    for name in (wired, "wired-two"):
        assert sh(nets, "cat /dev/shm/word", name) == "kept"
        reaches(nets, name)
    assert set(shown(nets)["back"]).isdisjoint(shown(nets, "wired-two")["back"])
    nets.ok("network", "disconnect", "back", wired)
    nets.ok("snapshot", "revert", wired, "both")
    assert sh(nets, "cat /dev/shm/word") == "kept"
    reaches(nets)
    nets.ok("network", "disconnect", "back", wired)
    assert interfaces(nets) == ["eth0", "lo"]


def test_it_changes_its_level_with_them(nets: Daemon, wired: str) -> None:
    """A machine becomes a container and a machine again with the networks it was given, and can be given more."""
    nets.ok("network", "connect", "back", wired)
    for level in ("container", "vm"):
        nets.ok("relevel", wired, "--isolation", level)
        until(lambda: nets.client.instances.get(wired).status == "running")
        reaches(nets)
    nets.ok("network", "connect", "more0", wired)
    assert interfaces(nets) == ["eth0", "eth1", "eth2", "lo"]


def test_beside_a_directory_of_the_host(nets: Daemon, nowhere: str) -> None:
    """A machine with a share has one slot less, and its networks come and go like others'."""
    assert interfaces(nets) == ["eth0", "lo"]
    nets.ok("network", "connect", "back", nowhere)
    reaches(nets)
    assert sh(nets, "cat /shared/word") == "here"
    nets.ok("network", "disconnect", "front", nowhere)
    assert interfaces(nets) == ["eth1", "lo"]


@pytest.fixture
def nowhere(nets: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A machine that a directory of the host is shared with."""
    place = tmp_path_factory.mktemp("shared")
    (place / "word").write_text("here\n")
    words = ("--name", "wired", "--isolation", "vm", "--network", "front", "-v", f"{place}:/shared", "plug:1")
    nets.ok("run", "-d", "--init", *words, "sleep", "6000")
    yield "wired"
    nets.ok("rm", "-f", "wired")
