"""Networks across hosts over a store of three members with TLS, of which some die in different ways."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pytest
from tests.api.test_overlay import RUN, SLEEP, reaches, refused
from tests.fleet import Fleet, Host, eventually, fleet
from tests.store import Member, Store

pytestmark = pytest.mark.needs("root", "nft", "nsenter", "unshare", "ip", "etcd", "busybox", "openssl")


class Trio(NamedTuple):
    """Two hosts and their store of three members."""

    fleet: Fleet
    store: Store
    one: Host
    two: Host

    def agrees(self, name: str) -> None:
        """See a network made on one host on the other, and members of it on both reach one another."""
        eventually(lambda: self.one.trivet("network", "create", "-d", "overlay", name).returncode == 0)
        eventually(lambda: name in self.two.ok("network", "ls"))
        for host, end in ((self.one, "left"), (self.two, "right")):
            eventually(lambda host=host, end=end: self._starts(host, f"{end}-{name}", name))  # type: ignore[misc]
        eventually(lambda: reaches(self.one, f"left-{name}", f"right-{name}"))
        eventually(lambda: reaches(self.two, f"right-{name}", f"left-{name}"))

    def wire(self, member: Member, state: str) -> None:
        """Cut a member off, or let it speak again."""
        self.fleet.fabric.ip(f"link set host{member.address.rpartition('.')[2]} {state}")

    def _starts(self, host: Host, name: str, network: str) -> bool:
        host.trivet("rm", "-f", name)
        return host.trivet(*RUN, "--name", name, "--network", network, *SLEEP).returncode == 0


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """Two hosts for all tests of this file; each leaves the store whole."""
    with fleet(tmp_path_factory.mktemp("fleet")) as made:
        store = made.cluster()
        options = (*store.options, "--store-ttl", "3")
        yield Trio(made, store, made.host(2, *options), made.host(3, *options))


def test_certificates(trio: Trio) -> None:
    """Hosts agree by a store that wants certificates; `system check` of one with wrong certificates says which."""
    trio.agrees("sure")
    (stranger, key), (_, address, *_) = trio.fleet.stranger(), trio.store.options
    authority = trio.store.options[3]
    said = {
        "its certificate is not accepted": ("--store", address),
        "it does not accept our certificate": ("--store", address, "--store-ca", authority),
        "it hung up": ("--store", address.replace("etcds", "etcd")),
        "accept our certificate": (
            *("--store", address, "--store-ca", authority),
            *("--store-cert", str(stranger), "--store-key", str(key)),
        ),
    }
    trio.one.stop()
    options = trio.one.options
    try:
        for words, wrong in said.items():
            trio.one.options = wrong
            trio.one.start()
            eventually(lambda words=words: words in trio.one.trivet("system", "check").stdout.decode())  # type: ignore[misc]
            trio.one.stop()
    finally:
        trio.one.options = options
        trio.one.start()
    eventually(lambda: reaches(trio.one, "left-sure", "right-sure"))


@pytest.mark.parametrize("way", ["killed", "unplugged", "frozen"])
def test_a_member_dies(trio: Trio, way: str) -> None:
    """Whichever member the hosts listen to, they go on with the others when it is gone, with or without a word."""
    for number, member in enumerate(trio.store.members):
        ways: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            "killed": (member.kill, member.start),
            "unplugged": (partial(trio.wire, member, "down"), partial(trio.wire, member, "up")),
            "frozen": (partial(member.send, signal.SIGSTOP), partial(member.send, signal.SIGCONT)),
        }
        strike, mend = ways[way]
        strike()
        try:
            trio.agrees(f"{way}{number}")
        finally:
            mend()
        eventually(lambda: not trio.one.trivet("system", "check").returncode)


def test_no_majority(trio: Trio) -> None:
    """With one member of three nothing new is decided, and why is said; traffic goes on, and so does all with two."""
    trio.agrees("few")
    first, second, _ = trio.store.members
    first.kill()
    trio.wire(second, "down")
    try:
        eventually(lambda: "has no majority" in trio.one.trivet("system", "check").stdout.decode())
        said = refused(trio.one, "network", "create", "-d", "overlay", "more")
        assert "has no majority" in said
        assert "10.77.0.11:2379: Connection refused" in said
        assert "10.77.0.13:2379: no leader" in said
        assert "start more of its members" in said
        assert reaches(trio.one, "left-few", "right-few")
        trio.two.ok("restart", "-t", "0", "right-few")
        assert reaches(trio.one, "left-few", "right-few")
    finally:
        first.start()
    trio.agrees("enough")
    trio.wire(second, "up")
