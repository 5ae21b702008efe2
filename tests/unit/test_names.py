"""The files that give an instance its names."""

from __future__ import annotations

from pathlib import Path

import pytest

from trivet.base.error import InvalidArgument
from trivet.engine.network import names

LOOPBACK = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


@pytest.fixture
def resolvers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The host's resolv.conf and the one systemd-resolved asks itself."""
    own, upstream = tmp_path / "resolv.conf", tmp_path / "upstream"
    monkeypatch.setattr(names, "RESOLV_CONF", own)
    monkeypatch.setattr(names, "UPSTREAM", upstream)
    return own, upstream


def test_resolvers_are_taken_over(resolvers: tuple[Path, Path]) -> None:
    """Resolvers and search words of the host are kept, comments are not."""
    resolvers[0].write_text("# mine\nnameserver 192.0.2.1\nsearch a.test b.test\noptions ndots:2\nsortlist x\n")
    assert names.resolv_conf() == b"nameserver 192.0.2.1\nsearch a.test b.test\noptions ndots:2\n"


@pytest.mark.parametrize("loopback", ["127.0.0.53", "127.0.0.1", "::1", "fe80::1%eth0", "not-an-address"])
def test_loopback_resolver(resolvers: tuple[Path, Path], loopback: str) -> None:
    """A resolver only the host can reach is replaced by what it asks, or by public ones; not on the host's network."""
    resolvers[0].write_text(f"nameserver {loopback}\n")
    assert names.resolv_conf() == b"nameserver 1.1.1.1\nnameserver 8.8.8.8\n"
    resolvers[1].write_text("nameserver 192.0.2.7\n")
    assert names.resolv_conf() == b"nameserver 192.0.2.7\n"
    if loopback != "not-an-address":
        assert names.resolv_conf(shared=True) == f"nameserver {loopback}\n".encode()


def test_asked_for_resolvers(resolvers: tuple[Path, Path]) -> None:
    """--dns takes the place of the host's resolvers; a name is no address."""
    resolvers[0].write_text("nameserver 192.0.2.1\nsearch a.test\n")
    assert names.resolv_conf(["198.51.100.1"]) == b"nameserver 198.51.100.1\nsearch a.test\n"
    with pytest.raises(InvalidArgument, match=r"dns\.test"):
        names.resolv_conf(["dns.test"])


def test_missing_resolv_conf(resolvers: tuple[Path, Path]) -> None:
    """A host without resolv.conf is no reason to fail."""
    assert names.resolv_conf().startswith(b"nameserver ")
    assert names.resolvers() == []


def test_hosts() -> None:
    """An instance finds itself, and what --add-host says."""
    text = names.hosts("web", "10.0.0.2", extra=["db:192.0.2.9", "six:[2001:db8::1]"])
    assert text.decode() == LOOPBACK + "10.0.0.2\tweb\n192.0.2.9\tdb\n2001:db8::1\tsix\n"


def test_hosts_without_a_network() -> None:
    """An instance without an address still finds itself; on the host's network it has the host's names too."""
    assert names.hosts("web", "").decode() == LOOPBACK + "127.0.1.1\tweb\n"
    assert names.hosts("web", "", base="127.0.0.1 localhost").decode() == "127.0.0.1 localhost\n127.0.1.1\tweb\n"


@pytest.mark.parametrize("entry", ["", "name", "name:", ":192.0.2.1", "na me:192.0.2.1", "a\nb:192.0.2.1", "x:1.2.3"])
def test_bad_host_entries(entry: str) -> None:
    """A host entry that is none is refused, so that nobody writes lines of his own."""
    with pytest.raises(InvalidArgument):
        names.hosts("web", "10.0.0.2", extra=[entry])


def test_search_domains_and_options() -> None:
    """--dns-search and --dns-option stand in resolv.conf instead of the host's; "." is no search domain at all."""
    text = names.resolv_conf(["192.0.2.1"], ["a.test", "b.test"], ["ndots:2"]).decode()
    assert text.splitlines() == ["nameserver 192.0.2.1", "search a.test b.test", "options ndots:2"]
    assert "search" not in names.resolv_conf(["192.0.2.1"], ["."]).decode()
    with pytest.raises(InvalidArgument, match="search domain"):
        names.resolv_conf([], ["a\nnameserver 6.6.6.6"])
