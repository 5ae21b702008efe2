"""Networks of driver macvlan: instances as neighbours of the host, on an interface of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from tests.fleet import Fleet, Host, Place, fleet

pytestmark = pytest.mark.needs("root", "nft", "nsenter", "unshare", "ip", "busybox")


class Lan(NamedTuple):
    """A host with two interfaces, and the network both are on."""

    host: Host
    fabric: Place

    def network(self, name: str, *options: str) -> None:
        """Make a network, in the fabric's subnet."""
        self.host.ok("network", "create", "-d", "macvlan", *SUBNET, *options, name)

    def refused(self, *words: str) -> str:
        """What a command that must fail says."""
        done = self.host.trivet(*words)
        assert done.returncode, words
        return done.stderr.decode()

    def clean(self) -> None:
        """Remove every instance and network."""
        for instance in self.host.client.instances.list(all=True):
            self.host.ok("rm", "-f", instance.name)
        self.host.ok("network", "prune", "-f")

    def pings(self, address: str) -> bool:
        """Whether the fabric reaches an address."""
        return "1 packets received" in self.fabric.run("busybox", "ping", "-c", "1", "-W", "5", address, check=False)


START = ("run", "-d", "--cap-add", "NET_RAW")
SUBNET = ("--subnet", "10.77.0.0/24", "--gateway", "10.77.0.1", "--ip-range", "10.77.0.128/25")


@pytest.fixture
def lan(place: Lan) -> Iterator[Lan]:
    """A host without instances and networks of other tests."""
    yield place
    place.clean()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """A host of the fabric; eth1 is there for what would disturb eth0."""
    with fleet(tmp_path_factory.mktemp("lan")) as made:
        host = _with_second_interface(made)
        yield Lan(host, made.fabric)


def _with_second_interface(made: Fleet) -> Host:
    host = made.host(2)
    made.fabric.ip(f"link add second type veth peer name eth1 netns {host.place.words[2]}")
    made.fabric.ip("link set second master fab0 up")
    return host


def test_neighbours(lan: Lan) -> None:
    """Containers on macvlan are on the parent's network with addresses of their own, and find one another by name."""
    lan.network("lan", "-o", "parent=eth0", "--ipv6", "--subnet6", "fd77::/64", "--gateway6", "fd77::1")
    fixed = ("--ip", "10.77.0.50", "--mac-address", "02:00:00:00:00:50")
    lan.host.ok(*START, "--name", "one", "--network", "lan", *fixed, "busybox:test", "sleep", "300")
    lan.host.ok(*START, "--name", "two", "--network", "lan", "busybox:test", "sleep", "300")
    assert lan.pings("10.77.0.50")
    assert "02:00:00:00:00:50" in lan.fabric.ip("neigh show 10.77.0.50")
    shown = lan.host.sh("two", "ip -o addr show eth0; ip route; ping -c 1 one; ping -c 1 10.77.0.1")
    for part in ("10.77.0.129/24", "fd77::3/64", "default via 10.77.0.1 dev eth0", "one ping statistics"):
        assert part in shown
    assert shown.count("1 packets received") == 2
    assert "100% packet loss" in lan.host.sh("two", "ping -c 1 -W 1 10.77.0.2")  # the host itself, by the kernel's rule
    (network,) = json.loads(lan.host.ok("network", "inspect", "lan"))
    assert (network["driver"], network["options"]) == ("macvlan", {"parent": "eth0"})
    assert "packets don't pass the host" in lan.refused(
        "run", "--rm", "--network", "lan", "-p", "80:80", "busybox:test", "true"
    )
    lan.host.ok("restart", "-t", "0", "two")
    assert "10.77.0.129/24" in lan.host.sh("two", "ip -o addr show eth0")
    lan.host.ok("network", "disconnect", "lan", "two")
    assert "eth0" not in lan.host.sh("two", "ip -o link")
    lan.host.ok("network", "connect", "lan", "two")
    assert "1 packets received" in lan.host.sh("two", "ping -c 1 one")
    assert lan.host.ok("system", "check")


def test_machine(lan: Lan) -> None:
    """A machine has a macvtap, and is such a neighbour too."""
    lan.network("lan-vm", "-o", "parent=eth0")
    machine = ("--isolation", "vm", "--network", "lan-vm", "--ip", "10.77.0.60")
    lan.host.ok(*START, "--name", "machine", *machine, "busybox:test", "sleep", "300", timeout=240)
    assert lan.pings("10.77.0.60")
    assert "1 packets received" in lan.host.sh("machine", "ping -c 1 10.77.0.1")
    assert "macvtap" in lan.host.place.run("ip", "-d", "link")
    lan.host.ok("rm", "-f", "machine")
    assert "macvtap" not in lan.host.place.run("ip", "-d", "link")


def test_modes(lan: Lan) -> None:
    """Members of a private network don't reach one another; one of mode passthru has a single member."""
    lan.network("apart", "-o", "parent=eth1", "-o", "macvlan_mode=private")
    for name, address in (("left", "10.77.0.70"), ("right", "10.77.0.71")):
        lan.host.ok(*START, "--name", name, "--network", "apart", "--ip", address, "busybox:test", "sleep", "300")
    assert "100% packet loss" in lan.host.sh("left", "ping -c 1 -W 1 10.77.0.71")
    assert lan.pings("10.77.0.70")
    lan.clean()
    lan.network("alone", "-o", "parent=eth1", "-o", "macvlan_mode=passthru")
    lan.host.ok(*START, "--name", "first", "--network", "alone", "busybox:test", "sleep", "300")
    said = lan.refused("run", "--rm", "--network", "alone", "busybox:test", "true")
    assert "cannot connect instance" in said
    assert "passthru" in said


def test_what_cannot_be(lan: Lan) -> None:
    """A network without a parent, on one that isn't there or has a network already, is refused and not made."""
    create = ("network", "create", "-d", "macvlan", *SUBNET)
    lan.host.ok("network", "create", "-d", "macvlan", "--subnet", "10.76.0.0/24", "-o", "parent=eth1", "taken")
    lan.host.ok("network", "create", "--subnet", "10.78.0.0/24", "beside")
    for words, said in (
        ((), "needs an interface of the host"),
        (("-o", "parent=eth7"), "interface eth7 of network wrong does not exist on this host"),
        (("-o", "parent=eth7.10"), "interface eth7 of network wrong does not exist"),
        (("-o", "parent=eth1"), "is used by network taken already"),
        (("-o", "parent=eth0", "-o", "macvlan_mode=open"), "'open' is not bridge or private or vepa or passthru"),
        (("-o", "parent=../x"), "no name of an interface"),
        (("-o", "parent=eth0", "-o", "com.docker.network.bridge.name=x"), "has no option"),
        (("-o", "parent=eth0", "--subnet", "10.78.0.0/24"), "overlaps 10.78.0.0/24"),
    ):
        assert said in lan.refused(*create, *words, "wrong"), words
    assert "wrong" not in lan.host.ok("network", "ls")


def test_kinds_of_interfaces(lan: Lan) -> None:
    """What this kernel has no interfaces for is refused by its name, when the network is made; numbers of VLANs end."""
    create = ("network", "create", *SUBNET)
    kinds = {"ipvlan": ("-d", "ipvlan", "-o", "parent=eth1"), "vlan": ("-d", "macvlan", "-o", "parent=eth1.10")}
    for kind, words in kinds.items():
        on_top = ("id", "10") if kind == "vlan" else ()
        there = lan.host.place.ip(f"link add probe link eth1 type {kind} {' '.join(on_top)}", check=False)
        lan.host.place.ip("link del probe", check=False)
        if "Unknown device type" in there or "Operation not supported" in there:
            assert f"this kernel has no interfaces of kind {kind}" in lan.refused(*create, *words, "kinds")
        else:
            lan.host.ok(*create, *words, "kinds")
            lan.host.ok("network", "rm", "kinds")
    assert "VLANs have numbers from 1 to 4094" in lan.refused(
        *create, "-d", "macvlan", "-o", "parent=eth1.4095", "kinds"
    )
    assert "kinds" not in lan.host.ok("network", "ls")
