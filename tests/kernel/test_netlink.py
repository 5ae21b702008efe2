"""Links, addresses and routes, in a network namespace of the test's own."""

from __future__ import annotations

import ipaddress
import os
import subprocess

import pytest

from trivet.kernel import rtnetlink
from trivet.kernel.netlink import attribute, attributes, pairs
from trivet.kernel.tap import create_tap

pytestmark = [pytest.mark.needs("root", "ip"), pytest.mark.usefixtures("own_network")]


def ip(*words: str) -> str:
    """Ask the reference implementation."""
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


def test_bridge() -> None:
    """A bridge is made up, with the address, MTU and alias it was asked for."""
    rtnetlink.create_bridge("b0", mtu=1400, mac="02:00:00:00:00:07", alias="a word")
    shown = ip("-d", "link", "show", "b0")
    assert all(word in shown for word in ("mtu 1400", "02:00:00:00:00:07", "alias a word", " bridge ", "UP"))
    link = rtnetlink.link("b0")
    assert link
    assert (link.kind, link.up, link.mtu, link.mac, link.alias) == ("bridge", True, 1400, "02:00:00:00:00:07", "a word")


def test_veth() -> None:
    """A pair is made with its host end up and on the bridge, its peer named and addressed in the other namespace."""
    rtnetlink.create_bridge("b0")
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; read x; ip -br link"], stdin=-1, stdout=-1) as other:
        assert other.stdin
        assert other.stdout
        other.stdout.readline()
        namespace = os.open(f"/proc/{other.pid}/ns/net", os.O_RDONLY)
        rtnetlink.create_veth("v0", "b0", "eth0", namespace, mac="02:00:00:00:00:01", mtu=1300, alias="web")
        os.close(namespace)
        inside = other.communicate(b"\n")[0].decode()
    assert "eth0@" in inside
    assert "02:00:00:00:00:01" in inside
    host = rtnetlink.link("v0")
    bridge = rtnetlink.link("b0")
    assert host
    assert bridge
    assert (host.master, host.mtu, host.alias, host.up) == (bridge.index, 1300, "web", True)


def test_tap() -> None:
    """A tap device stays when its maker closed it, and can be put on a bridge and taken off."""
    rtnetlink.create_bridge("b0")
    create_tap("t0")
    rtnetlink.set_link("t0", up=True, master="b0")
    assert "master b0" in ip("link", "show", "t0")
    rtnetlink.set_link("t0", master="")
    assert "master" not in ip("link", "show", "t0")
    with pytest.raises(OSError, match="t0"):
        create_tap("t0")


def test_address_and_routes() -> None:
    """An address brings its route; routes are listed with prefix and interface."""
    rtnetlink.create_bridge("b0")
    rtnetlink.add_address("b0", ipaddress.IPv4Interface("10.9.0.1/24"))
    rtnetlink.add_route(ipaddress.IPv4Network("10.10.0.0/16"), gateway="10.9.0.2")
    link = rtnetlink.link("b0")
    assert link
    assert rtnetlink.addresses("b0") == [ipaddress.IPv4Interface("10.9.0.1/24")]
    found = {str(route.destination): route.interface for route in rtnetlink.routes()}
    assert found == {"10.9.0.0/24": link.index, "10.10.0.0/16": link.index}


def test_delete() -> None:
    """Deleting a link tells whether it was there."""
    rtnetlink.create_bridge("b0")
    assert rtnetlink.delete_link("b0")
    assert not rtnetlink.delete_link("b0")
    assert rtnetlink.link("b0") is None
    assert [link.name for link in rtnetlink.links()] == ["lo"]


def test_errors_name_the_object() -> None:
    """A refusal is an OSError with the kernel's reason and the name of what it was about."""
    rtnetlink.create_bridge("b0")
    with pytest.raises(FileExistsError, match="b0"):
        rtnetlink.create_bridge("b0")
    with pytest.raises(OSError, match=r"No such device.*missing"):
        rtnetlink.set_link("missing", up=True)
    with pytest.raises(OSError, match="a-name-that-is-too-long"):
        rtnetlink.create_bridge("a-name-that-is-too-long")


def test_malformed_attributes() -> None:
    """Attributes whose length can't be right end the list instead of looping or reading beyond it."""
    good = attribute(1, "one")
    assert attributes(good) == {1: b"one\0"}
    for rest in (b"\0", b"\0\0\0\0", b"\xff\xff\1\0", b"\3\0\1\0"):
        assert list(pairs(good + rest)) == [(1, b"one\0")]
