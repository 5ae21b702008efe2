"""Networks without IPv4: addresses, names, ports, policies and machines on them, through the command."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.api.test_network import Nets, refused
from tests.conftest import Daemon

pytestmark = pytest.mark.needs("root", "nft")

ALONE = ("--ipv4=false", "--ipv6")
POLICY = """
kind: NetworkPolicy
metadata: {name: six-web}
spec:
  podSelector: {matchLabels: {app: six-web}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: six-one}}}]
    ports: [{port: 80}]
"""


@pytest.fixture
def nets(daemon: Daemon, busybox: str) -> Iterator[Nets]:
    """Networks and instances of a test."""
    with ExitStack() as stack:
        stack.callback(daemon.trivet, "policy", "rm", "six-web")
        yield Nets(daemon, busybox, stack)


def answers(url: str) -> bool:
    """Whether a web server answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.read())
    except OSError:
        return False


def web(nets: Nets, name: str, *options: str) -> None:
    """Start an instance that serves its host name, and wait until it does."""
    nets.run(name, "--network", "six", *options, command=("httpd", "-f", "-p", "[::]:80", "-h", "/etc"))


def gets(nets: Nets, name: str, target: str) -> bool:
    """Whether an instance gets a page from another."""
    return nets.sh(name, f"timeout 3 wget -qO- http://{target}/hostname >/dev/null && echo yes").endswith("yes")


def eventually(nets: Nets, name: str, target: str) -> None:
    """Wait until an instance gets a page."""
    deadline = time.monotonic() + 30
    while not gets(nets, name, target):
        assert time.monotonic() < deadline


def test_addresses_and_names(nets: Nets) -> None:
    """Members have IPv6 addresses alone, also one that was wished for, and find one another by name and address."""
    shown = nets.network("six", *ALONE, "--subnet6", "fd00:219:6::/64")
    assert (shown["subnet"], shown["gateway"], shown["subnet6"]) == ("", "", "fd00:219:6::/64")
    web(nets, "six-web", "--ip6", "fd00:219:6::77")
    nets.run("six-one", "--network", "six")
    (use,) = nets.uses("six-one").values()
    (address,) = use["addresses"]
    assert address.startswith("fd00:219:6::")
    assert "inet6 fd00:219:6::77/64" in nets.sh("six-web", "ip -o addr show eth0")
    assert "inet " not in nets.sh("six-web", "ip -o addr show eth0")
    assert nets.sh("six-web", "ip -6 route").count("default via fd00:219:6::1") == 1
    eventually(nets, "six-one", "six-web")
    assert "fd00:219:6::77" in nets.sh("six-one", "nslookup six-web")
    assert "six-web.six" in nets.sh("six-one", "nslookup fd00:219:6::77")
    members = json.loads(nets.daemon.ok("network", "inspect", "six"))[0]["members"]
    assert members == {"six-web": "fd00:219:6::77", "six-one": address.partition("/")[0]}
    assert f"fd00:219:6::77\t{nets.sh('six-web', 'hostname')}" in nets.sh("six-web", "cat /etc/hosts")
    assert "has no IPv4, so no address 10.0.0.9" in refused(
        nets, "run", "--rm", "--network", "six", "--ip", "10.0.0.9", nets.image, "true"
    )
    nets.daemon.ok("restart", "-t", "0", "six-one")
    assert nets.uses("six-one")["six"]["addresses"] == [address]
    nets.network("six-four")
    nets.daemon.ok("network", "connect", "six-four", "six-one")
    assert "default via" in nets.sh("six-one", "ip -4 route")
    assert nets.daemon.ok("system", "check") == "nothing wrong"


def test_ports(nets: Nets) -> None:
    """A port published without an address answers over both IP versions, changes hands, and is closed again."""
    nets.network("six", *ALONE)
    web(nets, "six-web", "-p", "80")
    ports = json.loads(nets.daemon.ok("inspect", "six-web"))[0]["ports"]
    number = ports[0]["host_port"]
    assert {port["host_address"] for port in ports} == {"0.0.0.0", "::"}
    deadline = time.monotonic() + 30
    while not all(answers(f"http://{at}:{number}/hostname") for at in ("127.0.0.1", "[::1]")):
        assert time.monotonic() < deadline
    why = nets.daemon.ok("network", "why", "host", f"127.0.0.1:{number}")
    assert "relay carries it to instance six-web" in why
    nets.daemon.ok("update", "--publish-rm", f"{number}:80", "six-web")
    assert not answers(f"http://127.0.0.1:{number}/hostname")


def test_policy(nets: Nets) -> None:
    """A policy says over IPv6, too, who may come; `why` and the dry run say the same."""
    nets.network("six", *ALONE)
    web(nets, "six-web", "--label", "app=six-web")
    for name in ("six-one", "six-two"):
        nets.run(name, "--network", "six", "--label", f"app={name}")
        eventually(nets, name, "six-web")
    dry = nets.daemon.ok("policy", "apply", "--dry-run", "-", input=POLICY.encode())
    assert "six-two → six-web: everything → nothing" in dry
    nets.daemon.ok("policy", "apply", "-", input=POLICY.encode())
    for name, passes in (("six-one", True), ("six-two", False)):
        assert gets(nets, name, "six-web") == passes
        assert (nets.daemon.trivet("network", "why", "-6", name, "six-web:80").returncode == 0) == passes
        assert (nets.daemon.trivet("network", "why", name, "six-web:80").returncode == 0) == passes


def test_machine(nets: Nets) -> None:
    """A machine has an IPv6 address alone as well, and asks its names at the network's IPv6 gateway."""
    gateway = nets.network("six", *ALONE)["gateway6"]
    web(nets, "six-web", "--cap-add", "NET_RAW")
    script = f"cat /etc/resolv.conf; until nslookup six-web {gateway}; do sleep 1; done; ip -o addr; sleep 300"
    nets.run("six-vm", "--network", "six", "--isolation", "vm", command=("sh", "-c", script))
    (address,) = nets.uses("six-web")["six"]["addresses"]
    deadline = time.monotonic() + 120
    while address.partition("/")[0] not in (log := nets.daemon.ok("logs", "six-vm")):
        assert time.monotonic() < deadline, log
        time.sleep(0.5)
    assert f"nameserver {gateway}" in log
    own = nets.uses("six-vm")["six"]["addresses"][0]
    while f"inet6 {own}" not in (log := nets.daemon.ok("logs", "six-vm")):
        assert time.monotonic() < deadline, log
    assert "packets received" in nets.sh("six-web", f"ping -6 -c 2 -W 5 {own.partition('/')[0]}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--ipv4=false",), "one of them must be enabled"),
        (("--ipv4=false", "--ipv6", "--subnet", "10.9.0.0/24"), "cannot have subnet 10.9.0.0/24 without IPv4"),
        (("--ipv4=maybe", "--ipv6"), "neither true nor false"),
    ],
)
def test_what_cannot_be(nets: Nets, words: tuple[str, ...], said: str) -> None:
    """A network of no IP version, or with the ranges of one it hasn't, is refused."""
    assert said in refused(nets, "network", "create", *words, "six-none")
