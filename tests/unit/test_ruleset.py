"""The nftables table as golden files (TRIVET_REGENERATE=1 rewrites them; then read the diff)."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from trivet.client.schema_network import Port
from trivet.engine.network import guard
from trivet.engine.network.model import Endpoint, Form, NetworkRecord
from trivet.engine.network.ruleset import Element, element, table

GOLDEN = Path(__file__).parent / "golden" / "ruleset"

FRONT = NetworkRecord(
    id="1",
    name="bridge",
    driver="bridge",
    created="",
    subnet="172.24.0.0/20",
    gateway="172.24.0.1",
    interface="trivet0",
)
BACK = NetworkRecord(
    id="2",
    name="back",
    driver="bridge",
    created="",
    subnet="10.208.0.0/24",
    gateway="10.208.0.1",
    interface="trv-012345",
    internal=True,
)
HOST = NetworkRecord(id="3", name="host", driver="host", created="")


def endpoint(network: NetworkRecord, address: str, *ports: Port, form: Form = "netns") -> Endpoint:
    return Endpoint(instance="i", name="web", network=network.id, form=form, address=address, ports=ports)


def port(host: int, inside: int, protocol: str = "tcp", address: str = "0.0.0.0") -> Port:
    return Port(container_port=inside, protocol=protocol, host_address=address, host_port=host)


WEB = endpoint(FRONT, "172.24.0.2", port(8080, 80), port(8443, 443, address="127.0.0.1"), port(53, 5353, "udp"))
PROCESS = endpoint(HOST, "", port(8081, 80), port(80, 80), port(1, 2, "udp", "192.0.2.1"), form="host")

CASES = {
    "empty": ([], [], {}),
    "one-network": ([FRONT], [], {}),
    "published": ([FRONT, BACK, HOST], [WEB, PROCESS], {4: ("eth0", "eth1")}),
}


@pytest.mark.parametrize("case", CASES)
def test_table(case: str) -> None:
    """The table is what it was when somebody last read it."""
    networks, endpoints, closed = CASES[case]
    same(case, table("trivet", networks, endpoints, closed).render())


def test_guard() -> None:
    """So is the one that says who instances may be; each of its elements is the same in both forms."""
    one = msgspec.structs.replace(WEB, device="tv0123456789", mac="02:74:ac:18:00:02", address6="fd00::2")
    same("guard", guard.table("trivet", [FRONT, HOST], [one, PROCESS]).render())
    sizes = {"guarded": 16, "own_mac": 24, "own_address": 20, "own_address6": 32, "own_target": 32}
    for mark in guard.marks(one, FRONT):
        assert len(mark.key) == sizes[mark.set]


def same(case: str, text: str) -> None:
    golden = GOLDEN / f"{case}.nft"
    if os.environ.get("TRIVET_REGENERATE"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize(
    "found", [item for one in (WEB, PROCESS) for each in one.ports if (item := element(one, each))]
)
def test_element_is_the_same_in_both_forms(found: Element) -> None:
    """An element added by netlink is the one `nft` would read: same map, and a key of that map's size."""
    assert found.map.startswith(("on_tcp", "on_udp"))
    assert len(found.key) == (8 if found.map.endswith("_at") else 2)
    assert len(found.value) == (2 if "_here" in found.map else 8)


def test_same_number_needs_no_rule() -> None:
    """An instance on the host's own network that publishes the port it listens on is there already."""
    assert element(PROCESS, port(80, 80)) is None
