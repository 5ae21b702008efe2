"""Address pools and subnets."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.base.error import AlreadyExists, Exhausted, InvalidArgument
from trivet.engine.network.ipam import Address, Pool, Subnet, free_subnet, mac_of

SUBNET = ipaddress.IPv4Network("10.0.0.0/29")
GATEWAY = ipaddress.IPv4Address("10.0.0.1")


def test_addresses_rest() -> None:
    """A released address is the last to be given again."""
    pool = Pool(SUBNET, GATEWAY)
    first = pool.allocate()
    pool.release(first)
    given_next = [pool.allocate() for _ in range(5)]
    assert given_next[:4] == [first + 1, first + 2, first + 3, first + 4]
    assert given_next[4] == first


def test_exhaustion() -> None:
    """A full pool says so, and gives again what is released."""
    pool = Pool(SUBNET, GATEWAY)
    given_out = [pool.allocate() for _ in range(5)]
    with pytest.raises(Exhausted, match=r"10.0.0.0/29"):
        pool.allocate()
    pool.release(given_out[2])
    assert pool.allocate() == given_out[2]


@pytest.mark.parametrize("wanted", ["10.0.0.0", "10.0.0.1", "10.0.0.7", "10.0.1.2", "fe80::1", "10.0.0", "x"])
def test_impossible_addresses(wanted: str) -> None:
    """Network, gateway, broadcast, foreign and malformed addresses are refused."""
    with pytest.raises(InvalidArgument, match=wanted):
        Pool(SUBNET, GATEWAY).allocate(wanted)


def test_static_address() -> None:
    """An address can be asked for once."""
    pool = Pool(SUBNET, GATEWAY)
    assert str(pool.allocate("10.0.0.5")) == "10.0.0.5"
    with pytest.raises(AlreadyExists, match=r"10.0.0.5"):
        pool.allocate("10.0.0.5")


@given(st.lists(st.one_of(st.none(), st.integers(0, 7))))
def test_no_address_twice(steps: list[int | None]) -> None:
    """Whatever is allocated and released, nobody gets what somebody has, nor what is reserved."""
    pool, held = Pool(SUBNET, GATEWAY), set[Address]()
    for step in steps:
        if step is None and len(held) < 5:
            address = pool.allocate()
            assert address not in held
            assert address in SUBNET
            assert address not in (GATEWAY, SUBNET.network_address, SUBNET.broadcast_address)
            held.add(address)
        elif step is not None:
            pool.release(SUBNET[step])
            held.discard(SUBNET[step])


def test_taken_addresses_are_known() -> None:
    """A pool made again from records goes on behind them."""
    pool = Pool(SUBNET, GATEWAY, [ipaddress.IPv4Address("10.0.0.2"), ipaddress.IPv4Address("10.0.0.3")])
    assert str(pool.allocate()) == "10.0.0.4"


def test_free_subnet() -> None:
    """The first subnet that overlaps nothing is chosen; a default route is no obstacle; ranges are tried in turn."""
    ranges = ((ipaddress.IPv4Network("10.0.0.0/30"), 31), (ipaddress.IPv4Network("10.1.0.0/31"), 32))
    used: list[Subnet] = [ipaddress.IPv4Network("0.0.0.0/0")]
    for expected in ("10.0.0.0/31", "10.0.0.2/31", "10.1.0.0/32", "10.1.0.1/32"):
        subnet = free_subnet(ranges, used)
        assert str(subnet) == expected
        used.append(subnet)
    with pytest.raises(Exhausted, match=r"10.0.0.0/30 and 10.1.0.0/31"):
        free_subnet(ranges, used)
    assert free_subnet(
        ranges, [ipaddress.IPv4Network("10.0.0.0/31"), ipaddress.IPv4Network("192.168.0.0/16")]
    ) == ipaddress.IPv4Network("10.0.0.2/31")


def test_mac() -> None:
    """A MAC is local, not multicast, and different for different addresses."""
    macs = {mac_of(address) for address in ipaddress.IPv4Network("10.0.0.0/24")}
    assert len(macs) == 256
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)
