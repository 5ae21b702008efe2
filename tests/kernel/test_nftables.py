"""nftables tables and elements, in a network namespace of the test's own."""

from __future__ import annotations

import ipaddress
import subprocess

import pytest

from trivet.base.error import Unsupported
from trivet.kernel import nftables
from trivet.kernel.nftables import Chain, RulesetError, Set, Table

pytestmark = [pytest.mark.needs("root", "nft"), pytest.mark.usefixtures("own_network")]

MAP = Set(name="ports", key="ipv4_addr . inet_service", value="ipv4_addr . inet_service")
HOOK = "type filter hook input priority 0"
KEY = nftables.join(ipaddress.IPv4Address("127.0.0.1"), 8080)
VALUE = nftables.join(ipaddress.IPv4Address("10.0.0.2"), 80)


def table(*rules: str, name: str = "t") -> Table:
    return Table(name=name, sets=(MAP,), chains=(Chain(name="c", hook=HOOK, rules=rules),))


def loaded() -> str:
    return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


def test_replace_is_whole() -> None:
    """A table takes the place of the one before it, elements included, and leaves others alone."""
    nftables.replace(table("accept", name="other"))
    nftables.replace(table("tcp dport 1 drop"))
    nftables.add_element("t", "ports", KEY, VALUE)
    nftables.replace(table("tcp dport 2 drop"))
    shown = loaded()
    assert "dport 2" in shown
    assert "dport 1 " not in shown
    assert "127.0.0.1" not in shown
    assert nftables.tables() == ["other", "t"]


def test_elements() -> None:
    """Elements come and go one at a time, and nft shows them as we mean them."""
    nftables.replace(table())
    nftables.add_element("t", "ports", KEY, VALUE)
    assert "127.0.0.1 . 8080 : 10.0.0.2 . 80" in loaded()
    assert nftables.has_element("t", "ports", KEY)
    assert nftables.keys("t", "ports") == [KEY]
    with pytest.raises(FileExistsError, match="ports"):
        nftables.add_element("t", "ports", KEY, nftables.join(ipaddress.IPv4Address("10.0.0.3"), 80))
    second = nftables.join(ipaddress.IPv4Address("127.0.0.1"), 8081)
    nftables.add_element("t", "ports", second, VALUE)
    missing = nftables.join(ipaddress.IPv4Address("127.0.0.1"), 8082)
    nftables.delete_elements("t", [("ports", second), ("ports", missing), ("ports", KEY)])
    nftables.delete_elements("t", [("ports", KEY)])
    assert not nftables.has_element("t", "ports", KEY)
    assert nftables.keys("t", "ports") == []


def test_many_keys() -> None:
    """A map too large for one netlink message is listed completely."""
    elements = tuple(f"127.0.0.1 . {port} : 10.0.0.2 . 80" for port in range(1, 5001))
    whole = Set(name="ports", key=MAP.key, value=MAP.value, elements=elements)
    nftables.replace(Table(name="t", sets=(whole,), chains=()))
    assert len(set(nftables.keys("t", "ports"))) == 5000


def test_missing() -> None:
    """What isn't there is told apart from what is wrong."""
    assert not nftables.exists("t")
    assert not nftables.has_element("t", "ports", KEY)
    assert nftables.keys("t", "ports") == []
    nftables.remove("t")
    with pytest.raises(FileNotFoundError):
        nftables.add_element("t", "ports", KEY, VALUE)


def test_error_names_the_rule() -> None:
    """A refused table names the rule, and what was loaded before stays."""
    nftables.replace(table("tcp dport 1 drop"))
    with pytest.raises(RulesetError, match="in rule 'tcp dport banana drop'"):
        nftables.replace(table("accept", "tcp dport banana drop"))
    assert "dport 1" in loaded()


def test_without_nft(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without nft is told which package to install."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unsupported) as caught:
        nftables.replace(table())
    assert "nftables" in (caught.value.hint or "")
