"""What another host may write into the fleet's store, and what is made of it."""

from __future__ import annotations

import msgspec
import pytest

from trivet.base.error import InvalidArgument, TrivetError
from trivet.engine.network import board
from trivet.engine.network.board import Board, Claim, Peer, Shared
from trivet.store.etcd import Change, connect

ID = "a" * 64
SHARED = Shared(
    id=ID,
    name="net",
    created="2026-01-01T00:00:00Z",
    number=4096,
    subnet="10.9.0.0/24",
    gateway="10.9.0.1",
    subnet6="fd00::/64",
    gateway6="fd00::1",
)
PEER = Peer(
    host="other",
    hostname="h",
    tunnel="192.0.2.7",
    name="web",
    mac="02:00:00:00:00:07",
    addresses=["10.9.0.7", "fd00::7"],
)
RECORD = board.adopt(SHARED, "trv-x")


def seen(*peers: Peer) -> Board:
    """A board with peers of one network."""
    made = Board()
    made.apply(
        Change(board.endpoint_key(ID, f"i{number}"), msgspec.json.encode(peer)) for number, peer in enumerate(peers)
    )
    return made


def test_entries() -> None:
    """A peer is a forwarding entry and a neighbour per address; this host's own instances are none."""
    words = {(entry.mac, str(entry.address), entry.neighbour) for entry in seen(PEER).entries(RECORD, "me")}
    mac = PEER.mac
    assert words == {(mac, "192.0.2.7", False), (mac, "10.9.0.7", True), (mac, "fd00::7", True)}
    assert seen(PEER).entries(RECORD, "other") == set()
    assert [each.name for each, _ in seen(PEER).far(RECORD, "me")] == ["web"]


@pytest.mark.parametrize(
    "changes",
    [
        {"mac": "01:00:00:00:00:07"},
        {"mac": "02:00:00:00:00"},
        {"tunnel": "224.0.0.1"},
        {"tunnel": "127.0.0.1"},
        {"tunnel": "0.0.0.0"},
        {"tunnel": "elsewhere"},
    ],
)
def test_peers_that_cannot_be(changes: dict[str, str]) -> None:
    """A peer whose hardware address or host can't be one is left out."""
    assert seen(msgspec.structs.replace(PEER, **changes)).entries(RECORD, "me") == set()


def test_addresses_that_are_not_the_networks() -> None:
    """A peer has no address outside of its network's subnets, and never the gateway's."""
    peer = msgspec.structs.replace(PEER, addresses=["10.9.0.1", "10.8.0.7", "fd00::1", "8.8.8.8", "x"])
    assert {entry.neighbour for entry in seen(peer).entries(RECORD, "me")} == {False}
    assert seen(peer).far(RECORD, "me") == []


def test_what_cannot_be_read() -> None:
    """Values that aren't ours are nothing, and take the place of what was there before."""
    made = seen(PEER)
    for value in (b"", b"[]", b"{}", b'{"host": 1}', b"\xff"):
        assert made.apply([Change(board.endpoint_key(ID, "i0"), value)]) == {ID}
        assert made.entries(RECORD, "me") == set()
    made.apply([Change("network/net", b"nonsense"), Change("strange", b"1"), Change("", b"")])
    assert made.networks == {}


def test_networks_that_cannot_be() -> None:
    """A network of another host is refused when its parts don't fit together."""
    for changes in (
        {"gateway": "10.8.0.1"},
        {"subnet": "10.9.0.1/24"},
        {"subnet": ""},
        {"subnet": "", "gateway": "", "subnet6": "", "gateway6": ""},
        {"subnet": "fd00:1::/64", "gateway": "fd00:1::1"},
        {"number": 0},
        {"number": 1 << 24},
        {"name": "../net"},
        {"id": "x"},
        {"mtu": 20},
    ):
        with pytest.raises(ValueError, match=r"."):
            board.adopt(msgspec.structs.replace(SHARED, **changes), "trv-x")
    alone = msgspec.structs.replace(SHARED, subnet="", gateway="")
    assert board.adopt(alone, "trv-x").gateways == ["fd00::1"]


def test_addresses_elsewhere() -> None:
    """Addresses of other hosts aren't given here; a host's own are its own business."""
    made = Board()
    for address, host in (("10.9.0.5", "other"), ("10.9.0.6", "me"), ("nonsense", "other")):
        claim = Claim(host=host, instance="i", name="n")
        made.apply([Change(board.address_key(ID, address), msgspec.json.encode(claim))])
    assert made.elsewhere(ID, "me") == {(10 << 24) + (9 << 16) + 5}
    made.apply([Change(board.address_key(ID, "10.9.0.5"), None)])
    assert made.elsewhere(ID, "me") == set()


def test_record_there_and_back() -> None:
    """What is shared of a network is all that another host needs to share it on."""
    assert board.share(RECORD) == msgspec.structs.replace(SHARED, options=RECORD.options)


def test_store_addresses() -> None:
    """A store is named by its members, with or without port; anything else is refused."""
    assert connect("etcd://a:1,[::1]:2,c/site").members == (("a", 1), ("::1", 2), ("c", 2379))
    for address in ("consul://a", "etcd://", "a:2379", "etcd://a:port", "etcd://:1"):
        with pytest.raises(InvalidArgument):
            connect(address)
    with pytest.raises(TrivetError, match="certificates"):
        connect("etcds://a", authority="/nowhere")
