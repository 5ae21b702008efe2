"""Names on networks come and go with instances."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.conftest import Daemon


@pytest.fixture
def net(daemon: Daemon) -> Iterator[str]:
    """A network; it and instances named after it go afterwards."""
    word = f"nb-{os.urandom(3).hex()}"
    daemon.ok("network", "create", word)
    yield word
    for instance in daemon.client.instances.list(all=True):
        if instance.name.startswith(word):
            daemon.ok("rm", "-f", instance.name)
    for name in (word, f"{word}-2"):
        daemon.trivet("network", "rm", name)


def _hosts(daemon: Daemon, name: str) -> dict[str, str]:
    """Read the names an instance knows."""
    lines = daemon.ok("exec", name, "cat", "/etc/hosts").splitlines()
    return {name: line.split()[0] for line in lines for name in line.split()[1:]}


def _run(daemon: Daemon, image: str, name: str, *options: str) -> None:
    daemon.ok("run", "-d", "--name", name, *options, image, "httpd", "-f", "-h", "/etc")


def test_names_of_those_who_come_later(daemon: Daemon, busybox: str, net: str) -> None:
    """An instance is found by name, alias and id by those that ran before it, and by nobody once it is removed."""
    _run(daemon, busybox, f"{net}-a", "--network", net)
    _run(daemon, busybox, f"{net}-b", "--network", net, "--network-alias", "web")
    other = daemon.client.instances.get(f"{net}-b")
    address = other.networks[0].addresses[0].partition("/")[0]
    known = _hosts(daemon, f"{net}-a")
    assert [known.get(name) for name in (f"{net}-b", "web", other.id[:12])] == [address] * 3
    assert daemon.ok("exec", f"{net}-a", "wget", "-qO-", "http://web/hostname") == other.id[:12]
    daemon.ok("rename", f"{net}-b", f"{net}-c")
    assert f"{net}-c" in _hosts(daemon, f"{net}-a")
    daemon.ok("rm", "-f", f"{net}-c")
    assert not {f"{net}-c", "web"} & _hosts(daemon, f"{net}-a").keys()


def test_names_follow_networks(daemon: Daemon, busybox: str, net: str) -> None:
    """Who is connected to a network is found there, and no more when it is disconnected."""
    daemon.ok("network", "create", f"{net}-2")
    _run(daemon, busybox, f"{net}-a", "--network", f"{net}-2")
    _run(daemon, busybox, f"{net}-b", "--network", net)
    assert f"{net}-a" not in _hosts(daemon, f"{net}-b")
    daemon.ok("network", "connect", "--alias", "back", net, f"{net}-a")
    assert {f"{net}-a", "back"} <= _hosts(daemon, f"{net}-b").keys()
    assert f"{net}-b" in _hosts(daemon, f"{net}-a")
    daemon.ok("network", "disconnect", net, f"{net}-a")
    assert "back" not in _hosts(daemon, f"{net}-b")
    assert f"{net}-b" not in _hosts(daemon, f"{net}-a")
