"""Networks of instances, through the command: several of them, joined and left while the instance runs."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.conftest import Daemon

pytestmark = pytest.mark.needs("root", "nft")


class Nets:
    """Networks and instances of one test, removed after it."""

    def __init__(self, daemon: Daemon, image: str, stack: ExitStack) -> None:
        self.daemon = daemon
        self.image = image
        self._stack = stack

    def network(self, name: str, *options: str) -> dict[str, Any]:
        """Create a network; what `inspect` shows of it."""
        self.daemon.ok("network", "create", *options, name)
        self._stack.callback(self.daemon.trivet, "network", "rm", name)
        shown: dict[str, Any] = json.loads(self.daemon.ok("network", "inspect", name))[0]
        return shown

    def run(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "300")) -> None:
        """Start an instance."""
        self._stack.callback(self.daemon.trivet, "rm", "-f", name)
        self.daemon.ok("run", "-d", "--name", name, *options, self.image, *command)

    def sh(self, name: str, script: str) -> str:
        """Run a shell in an instance; what it printed, also when it failed."""
        done = self.daemon.trivet("exec", name, "sh", "-c", script)
        return (done.stdout + done.stderr).decode().strip()

    def uses(self, name: str) -> dict[str, dict[str, Any]]:
        """An instance's interfaces by network."""
        shown = json.loads(self.daemon.ok("inspect", name))[0]
        return {use["network"]: use for use in shown["networks"]}


@pytest.fixture
def nets(daemon: Daemon, busybox: str) -> Iterator[Nets]:
    """Networks and instances of a test."""
    with ExitStack() as stack:
        yield Nets(daemon, busybox, stack)


def refused(nets: Nets, *words: str) -> str:
    """What a command that must fail says."""
    done = nets.daemon.trivet(*words)
    assert done.returncode, words
    return done.stderr.decode()


def test_several_networks(nets: Nets) -> None:
    """An instance has an interface on each of its networks, with the wanted addresses; one has the default route."""
    nets.network("sev-a", "--subnet", "10.219.20.0/24")
    nets.network("sev-b", "--subnet", "10.219.21.0/24")
    second = "name=sev-b,ip=10.219.21.77,mac-address=02:00:00:00:21:77,gw-priority=1"
    nets.run("sev", "--network", "sev-a", "--ip", "10.219.20.9", "--network", second)
    shown = nets.sh("sev", "ip -o -4 addr; ip route; cat /sys/class/net/eth1/address")
    for part in ("eth0    inet 10.219.20.9/24", "eth1    inet 10.219.21.77/24", "default via 10.219.21.1 dev eth1"):
        assert part in shown
    assert shown.count("default") == 1
    assert shown.endswith("02:00:00:00:21:77")
    assert nets.uses("sev")["sev-b"]["addresses"] == ["10.219.21.77/24"]
    assert "is in use by instance sev" in refused(nets, "network", "rm", "sev-b")


def test_connect_and_disconnect(nets: Nets) -> None:
    """A running instance joins and leaves networks; routes follow, and a restart finds it where it was left."""
    nets.network("con-a", "--subnet", "10.219.22.0/24")
    nets.network("con-b", "--subnet", "10.219.23.0/24")
    nets.run("con", "--network", "con-a")
    nets.daemon.ok("network", "connect", "--ip", "10.219.23.9", "con-b", "con")
    assert "eth1    inet 10.219.23.9/24" in nets.sh("con", "ip -o -4 addr")
    assert "already connected to network con-b" in refused(nets, "network", "connect", "con-b", "con")
    nets.daemon.ok("network", "disconnect", "con-a", "con")
    routes = nets.sh("con", "ip route")
    assert "default via 10.219.23.1 dev eth1" in routes
    assert "10.219.22" not in routes
    assert "instance con is not connected" in refused(nets, "network", "disconnect", "con-a", "con")
    nets.daemon.ok("restart", "-t", "0", "con")
    assert "default via 10.219.23.1 dev eth0" in nets.sh("con", "ip route")
    assert list(nets.uses("con")) == ["con-b"]
    nets.daemon.ok("network", "disconnect", "con-b", "con")
    assert nets.sh("con", "ip route") == ""
    nets.daemon.ok("network", "connect", "con-a", "con")
    assert "default via 10.219.22.1" in nets.sh("con", "ip route")


def test_ports_follow(nets: Nets) -> None:
    """A published port leads over another network of the instance when the one it led over is taken away."""
    nets.network("fol-a")
    nets.network("fol-b")
    nets.run("fol", "--network", "fol-a", "--network", "fol-b", "-p", "80", command=("httpd", "-f", "-h", "/etc"))
    (port,) = json.loads(nets.daemon.ok("inspect", "fol"))[0]["ports"]
    url = f"http://127.0.0.1:{port['host_port']}/hostname"
    for _ in range(2):
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.read()
        nets.daemon.trivet("network", "disconnect", "fol-a", "fol")


@pytest.mark.parametrize("level", ["container", "process"])
def test_ports_change_while_it_runs(nets: Nets, level: str) -> None:
    """Ports come and go on a running instance and stay so over a restart; a taken one is refused, nothing changes."""
    command = ("sh", "-c", "busybox httpd -f -p 8097 -h /etc || httpd -f -p 8097 -h /etc")
    nets.run("chg", "--isolation", level, "-p", "127.0.0.1:8191:8097", command=command)
    nets.run("chg-other", "-p", "127.0.0.1:8193:80")
    assert "is already used by instance chg-other" in refused(
        nets, "update", "--publish-rm", "8097", "--publish-add", "127.0.0.1:8193:8097", "chg"
    )
    assert "does not publish port 8444/tcp" in refused(nets, "update", "--publish-rm", "8444", "chg")
    assert answers(8191)
    nets.daemon.ok("update", "--publish-rm", "8191:8097", "--publish-add", "127.0.0.1:8192:8097", "chg")
    nets.daemon.ok("update", "--publish-add", "127.0.0.1:8194:8097", "chg")
    for _ in range(2):
        assert (answers(8191), answers(8192), answers(8194)) == (False, True, True)
        ports = json.loads(nets.daemon.ok("inspect", "chg"))[0]["ports"]
        assert sorted(port["host_port"] for port in ports) == [8192, 8194]
        nets.daemon.ok("restart", "-t", "0", "chg")
    nets.daemon.ok("stop", "-t", "0", "chg")
    nets.daemon.ok("update", "--publish-rm", "8192:8097", "--publish-rm", "8194:8097", "chg")
    assert "chg" in nets.daemon.ok("start", "chg")
    assert nets.daemon.ok("port", "chg") == ""


def answers(port: int) -> bool:
    """Whether a web server answers on a port of the host within a moment."""
    for _ in range(20):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/hostname", timeout=10) as answer:
                return bool(answer.read())
        except urllib.error.HTTPError:
            return True
        except OSError:
            time.sleep(0.05)
    return False


def test_why(nets: Nets) -> None:
    """The command says who is reached and which rule decides it, by names as people use them; so does its exit code."""
    nets.network("why-a", "--ipv6")
    nets.network("why-b", "--internal")
    nets.run("why1", "--network", "why-a", "-p", "127.0.0.1:8195:80")
    nets.run("why2", "--network", "why-a", "--network", "why-b")
    nets.run("why3", "--network", "why-b")
    for words, passes, said in (
        (("why1", "why2:5432"), True, "network why-a is theirs both"),
        (("-6", "why1", "why2:53", "udp"), True, "reaches instance why2"),
        (("why3", "why2:1"), True, "network why-b is theirs both"),
        (("why3", "why1:80"), False, "network why-b is internal"),
        (("world", "why1:80"), False, "it is published: ask 127.0.0.1:8195 of the host"),
        (("host", "host:8195"), True, "reaches instance why1"),
        (("host", "127.0.0.1:8194"), True, "reaches the host itself"),
        (("why1", "world:443"), True, "masquerade"),
        (("why3", "world:443"), False, "drop"),
        (("-6", "why1", "why3:80"), False, "has no IPv6 address"),
    ):
        done = nets.daemon.trivet("network", "why", *words)
        assert (done.returncode, said in done.stdout.decode()) == (0 if passes else 1, True), (words, done)
    assert "no such instance" in refused(nets, "network", "why", "why1", "nobody:80").lower()
    assert "is not WHERE:PORT" in refused(nets, "network", "why", "why1", "why2")
    nets.daemon.ok("stop", "-t", "0", "why2")
    assert "why2 is not running" in refused(nets, "network", "why", "why1", "why2:80")


def test_rates(nets: Nets) -> None:
    """Rates are taken at the start, changed while it runs, shown, kept over a restart; refused where nobody looks."""
    nets.network("rate-a")
    nets.run("rate1", "--network", "name=rate-a,rate-in=10mbit,rate-out=512kbit")
    shown = nets.uses("rate1")["rate-a"]
    assert (shown["rate_in"], shown["rate_out"]) == (10_000_000, 512_000)
    nets.daemon.ok("update", "--network", "name=rate-a,rate-out=0", "rate1")
    for _ in range(2):
        shown = nets.uses("rate1")["rate-a"]
        assert (shown["rate_in"], shown["rate_out"]) == (10_000_000, 0)
        nets.daemon.ok("restart", "-t", "0", "rate1")
    for words, said in (
        (("update", "--network", "name=bridge,rate-in=1mbit", "rate1"), "not connected to network bridge"),
        (("update", "--network", "name=rate-a,ip=10.0.0.1", "rate1"), "nothing else can be changed"),
        (("update", "--network", "name=rate-a,rate-in=fast", "rate1"), "is not a rate"),
        (("run", "--network", "name=host,rate-in=1mbit", nets.image, "true"), "don't pass a bridge"),
    ):
        assert said in refused(nets, *words), words


def test_shared_network(nets: Nets) -> None:
    """`container:ID` is the other's network with its addresses and names, as long as it runs."""
    nets.run("sha", command=("httpd", "-f", "-h", "/etc"))
    words = ("run", "--rm", "--network", "container:sha", nets.image, "sh", "-c")
    address = nets.sh("sha", "ip -o -4 addr show eth0")
    assert nets.daemon.ok(*words, "ip -o -4 addr show eth0") == address
    assert (
        nets.daemon.ok(*words, "wget -qO- http://127.0.0.1/hostname; hostname").split()
        == [nets.sh("sha", "hostname")] * 2
    )
    assert "cannot be published" in refused(nets, "run", "-p", "80:80", *words[1:-2], "true")
    nets.daemon.ok("stop", "-t", "0", "sha")
    assert "it is not running" in refused(nets, *words, "true")


def test_what_cannot_be(nets: Nets) -> None:
    """What no network can do is refused with the reason, and nothing is made."""
    nets.network("not-a", "--subnet", "10.219.24.0/24")
    run = ("run", "--name", "not", nets.image)
    for words, said in (
        (("--network", "not-a", "--network", "not-a"), "given twice"),
        (("--network", "host", "--network", "not-a"), "network host cannot be combined with not-a"),
        (("--network", "not-a", "--ip", "10.219.25.1"), "is not in subnet"),
        (("--network", "not-a", "--ip6", "fd00::1"), "has no IPv6"),
        (("--network", "not-a", "--mac-address", "01:00:00:00:00:01"), "address of a group"),
        (("--network", "not-a", "--network-alias", "a b"), "is not a name"),
        (("--isolation", "process", "--network", "not-a"), "level process"),
        (("--network", "name=not-a,color=red"), "color=red"),
    ):
        assert said in refused(nets, run[0], *words, *run[1:]), words
        nets.daemon.trivet("rm", "-f", "not")
    nets.run("not-host", "--network", "host")
    assert "it uses network host" in refused(nets, "network", "connect", "not-a", "not-host")


def test_why_an_instance_by_its_port(nets: Nets) -> None:
    """Asked about the host's port of an instance, `why` says where that leads."""
    nets.network("why", "--ipv6")
    nets.run("why-web", "--network", "why", "-p", "18476:80")
    said = nets.daemon.trivet("network", "why", "world", "why-web:18476").stdout.decode()
    assert "port 18476 of the host leads to its port 80: ask 0.0.0.0:18476 of the host" in said
    said = nets.daemon.trivet("network", "why", "-6", "world", "why-web:80").stdout.decode()
    assert "it is published: ask [::]:18476 of the host" in said
    nets.run("why-own", "--isolation", "process")
    assert "reaches the host itself" in nets.daemon.ok("network", "why", "why-web", "why-own:80")
