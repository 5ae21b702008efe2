"""Links: names of one's own for other instances."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.conftest import Daemon

from trivet.client.schema import InstanceRequest
from trivet.client.schema_network import LinkRequest


@pytest.fixture
def server(daemon: Daemon, busybox: str) -> Iterator[str]:
    """A running instance that exposes a port and has a variable."""
    name = f"linked-{os.urandom(3).hex()}"
    options = ["--expose", "80", "--expose", "53/udp", "-e", "WORD=two words", "-e", "HOME=/x"]
    daemon.ok("run", "-d", "--name", name, *options, busybox, "httpd", "-f", "-p", "80")
    yield name
    daemon.trivet("rm", "-f", name)


def test_the_default_network(daemon: Daemon, busybox: str, server: str) -> None:
    """A linked instance is known by its alias, name and id, and described in variables, but not over one's own."""
    address = daemon.client.instances.get(server).networks[0].addresses[0].partition("/")[0]
    own = ["-e", "DB_1_NAME=mine"]
    script = (
        "env | grep ^DB_1 | sort; grep -c $1 /etc/hosts; for n in db-1 $2; do wget -qO- http://$n/no 2>&1; done; true"
    )
    done = daemon.ok(
        "run", "--rm", "--name", f"{server}-c", "--link", f"{server}:db-1", *own, busybox,
        "sh", "-c", script, "sh", address, server,
    )  # fmt: skip
    assert done.splitlines() == [
        "DB_1_ENV_WORD=two words",
        "DB_1_NAME=mine",
        f"DB_1_PORT=udp://{address}:53",
        f"DB_1_PORT_53_UDP=udp://{address}:53",
        f"DB_1_PORT_53_UDP_ADDR={address}",
        "DB_1_PORT_53_UDP_PORT=53",
        "DB_1_PORT_53_UDP_PROTO=udp",
        f"DB_1_PORT_80_TCP=tcp://{address}:80",
        f"DB_1_PORT_80_TCP_ADDR={address}",
        "DB_1_PORT_80_TCP_PORT=80",
        "DB_1_PORT_80_TCP_PROTO=tcp",
        "3",
        "wget: server returned error: HTTP/1.1 404 Not Found",
        "wget: server returned error: HTTP/1.1 404 Not Found",
    ]


def test_a_network_of_ones_own(daemon: Daemon, busybox: str, server: str) -> None:
    """On a network where names are found there is the alias, for this instance alone, and no variable."""
    daemon.ok("network", "create", f"{server}-n")
    daemon.ok("network", "connect", f"{server}-n", server)
    options = ["--network", f"{server}-n"]
    look = "env | grep -c ^DB; nslookup db >/dev/null 2>&1; getent hosts db | wc -l; wget -qO- http://db/ 2>&1; true"
    shown = daemon.ok("run", "--rm", "--link", f"{server}:db", *options, busybox, "sh", "-c", look).splitlines()
    assert (shown[0], shown[-1]) == ("0", "wget: server returned error: HTTP/1.1 404 Not Found")
    other = daemon.trivet("run", "--rm", *options, busybox, "wget", "-qO-", "http://db/")
    assert b"bad address" in other.stderr
    daemon.ok("rm", "-f", server)
    daemon.ok("network", "rm", f"{server}-n")


def test_an_address_that_changes(daemon: Daemon, busybox: str, server: str) -> None:
    """What is linked may be restarted and renamed; a start finds it where it is then."""
    made = daemon.client.instances.create(
        InstanceRequest(
            image=busybox,
            command=["sh", "-c", "env"],
            links=[LinkRequest(instance=server, alias="db")],
            name=f"{server}-e",
        )
    )
    daemon.ok("rename", server, f"{server}-new")
    daemon.ok("restart", "-t", "0", f"{server}-new")
    assert "DB_PORT_80_TCP_ADDR" in daemon.ok("start", "-a", made.id)
    daemon.ok("kill", f"{server}-new")
    daemon.ok("wait", f"{server}-new")
    failed = daemon.trivet("start", "-a", made.id)
    assert f"{server}-new, which it is linked to as db, is not running" in failed.stderr.decode()
    daemon.ok("rm", "-f", made.id, f"{server}-new")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--link", "nobody-here:db"], "nobody-here"),
        (["--network", "host", "--link", "SERVER:db"], "need a network of one's own"),
        (["--network", "none", "--link", "SERVER:db"], "need a network of one's own"),
        (["--isolation", "process", "--link", "SERVER:db"], "need a network of one's own"),
        (["--link", "SERVER:a b"], "cannot be the name of a link"),
        (["--link", "SERVER:"], "is not INSTANCE or INSTANCE:ALIAS"),
    ],
)
def test_what_cannot_be(daemon: Daemon, busybox: str, server: str, options: list[str], says: str) -> None:
    """What can't be linked is refused with the reason, and nothing is left."""
    before = len(daemon.client.instances.list(all=True))
    done = daemon.trivet("run", "--rm", *(each.replace("SERVER", server) for each in options), busybox, "true")
    assert says in done.stderr.decode()
    assert done.returncode
    assert len(daemon.client.instances.list(all=True)) == before
