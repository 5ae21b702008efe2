"""Networks across hosts: engines in namespaces of their own, with a real etcd between them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from tests.fleet import Host, Place, eventually, fleet
from tests.store import Store

pytestmark = pytest.mark.needs("root", "nft", "nsenter", "unshare", "ip", "etcd", "busybox")

RUN = ("run", "-d", "--cap-add", "NET_RAW")
SLEEP = ("busybox:test", "sleep", "600")


class Pair(NamedTuple):
    """Two hosts and their store."""

    one: Host
    two: Host
    store: Store
    fabric: Place

    def clean(self) -> None:
        """Remove every instance and network."""
        for host in (self.one, self.two):
            for instance in host.client.instances.list(all=True):
                host.ok("rm", "-f", instance.name)
        self.one.ok("network", "prune", "-f")
        eventually(lambda: "overlay" not in self.two.ok("network", "ls"))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two hosts for all tests of this file."""
    with fleet(tmp_path_factory.mktemp("fleet")) as made:
        store = made.store()
        options = (*store.options, "--store-ttl", "3")
        yield Pair(made.host(2, *options), made.host(3, *options), store, made.fabric)


@pytest.fixture
def pair(hosts: Pair) -> Iterator[Pair]:
    """Two hosts with nothing on them."""
    yield hosts
    hosts.clean()


def network(pair: Pair, name: str, *options: str) -> dict[str, Any]:
    """Make a network on one host, and wait for it on the other; what that shows of it."""
    pair.one.ok("network", "create", "-d", "overlay", *options, name)
    eventually(lambda: name in pair.two.ok("network", "ls"))
    shown: dict[str, Any] = json.loads(pair.two.ok("network", "inspect", name))[0]
    return shown


def reaches(host: Host, name: str, target: str) -> bool:
    """Whether an instance reaches another by name or address."""
    return "1 packets received" in host.sh(name, f"ping -c 1 -W 2 {target}")


def refused(host: Host, *words: str) -> str:
    """What a command that must fail says."""
    done = host.trivet(*words)
    assert done.returncode, words
    return done.stderr.decode()


def tunnel(host: Host) -> str:
    """What the tunnels of a host know."""
    return host.place.run("bridge", "fdb", "show")


def test_two_hosts(pair: Pair) -> None:
    """Instances on two hosts reach one another by name and address, over IPv4 and IPv6, with whole packets."""
    shown = network(pair, "across", "--ipv6")
    assert shown["mtu"] == 1450
    pair.one.ok(*RUN, "--name", "left", "--network", "across", *SLEEP)
    pair.two.ok(*RUN, "--name", "right", "--network", "name=across,alias=other", *SLEEP)
    eventually(lambda: reaches(pair.one, "left", "right"))
    assert reaches(pair.two, "right", "left")
    assert reaches(pair.one, "left", "other")
    (use,) = json.loads(pair.two.ok("inspect", "right"))[0]["networks"]
    (own,) = json.loads(pair.one.ok("inspect", "left"))[0]["networks"]
    assert use["addresses"][0].split("/")[0] not in own["addresses"][0]
    assert reaches(pair.one, "left", use["addresses"][1].split("/")[0])
    assert "1400 bytes" in pair.one.sh("left", "ping -c 1 -s 1392 right") or reaches(pair.one, "left", "-s 1392 right")
    members = json.loads(pair.one.ok("network", "inspect", "across"))[0]["members"]
    assert sorted(name.partition("@")[0] for name in members) == ["left", "right"]
    assert "is in use by instance right" in refused(pair.one, "network", "rm", "across") or "left" in refused(
        pair.one, "network", "rm", "across"
    )
    pair.one.ok("rm", "-f", "left")
    assert "is in use by instance right" in refused(pair.one, "network", "rm", "across")
    assert "OBJECT" not in pair.two.ok("system", "check")


def test_without_ipv4(pair: Pair) -> None:
    """A network of IPv6 alone is on both hosts, and its members find one another."""
    network(pair, "six", "--ipv4=false", "--ipv6")
    for host, name in ((pair.one, "left"), (pair.two, "right")):
        host.ok(*RUN, "--name", name, "--network", "six", *SLEEP)
    eventually(lambda: reaches(pair.one, "left", "-6 right"))
    assert reaches(pair.two, "right", "-6 left")
    assert "inet " not in pair.one.sh("left", "ip -o addr show eth0")


def test_way_out_and_ports(pair: Pair) -> None:
    """What leaves has the address of the instance's own host, and a port published there leads to it."""
    network(pair, "out")
    pair.two.ok(*RUN, "--name", "web", "--network", "out", "-p", "8080:80", *SLEEP[:1], "httpd", "-f", "-h", "/etc")
    ask = "import urllib.request as r; print(r.urlopen('http://10.77.0.3:8080/hostname', timeout=5).read().decode())"
    eventually(lambda: bool(pair.fabric.run(sys.executable, "-c", ask, check=False).strip()))
    answer = pair.fabric.run(sys.executable, "-c", ask)
    assert answer.strip() == pair.two.sh("web", "hostname")
    assert reaches(pair.two, "web", "10.77.0.1")


def test_addresses_are_given_once(pair: Pair) -> None:
    """Hosts that start instances at the same time never give an address twice; one that is taken is refused."""
    network(pair, "many", "--subnet", "10.219.40.0/26")
    with ThreadPoolExecutor(4) as workers:
        jobs = [(host, f"{name}{number}") for number in range(4) for host, name in ((pair.one, "a"), (pair.two, "b"))]
        list(workers.map(lambda job: job[0].ok(*RUN, "--name", job[1], "--network", "many", *SLEEP), jobs))
    found = [use["addresses"][0] for host, name in jobs for use in json.loads(host.ok("inspect", name))[0]["networks"]]
    assert len(set(found)) == len(jobs)
    taken = found[0].split("/")[0]
    assert f"address {taken} is already in use by instance a0" in refused(
        pair.two, "run", "--rm", "--network", "many", "--ip", taken, "busybox:test", "true"
    )
    pair.one.ok("rm", "-f", "a0")
    pair.two.ok("run", "--rm", "--network", "many", "--ip", taken, "busybox:test", "true")


def test_networks_are_made_once(pair: Pair) -> None:
    """Two hosts that make networks at the same time choose different subnets; of one name only one is made."""
    words = ("network", "create", "-d", "overlay")
    with ThreadPoolExecutor(4) as workers:
        jobs = [(pair.one, "red"), (pair.two, "blue"), (pair.one, "same"), (pair.two, "same")]
        codes = list(workers.map(lambda job: job[0].trivet(*words, job[1]).returncode, jobs))
    assert codes[:2] == [0, 0]
    assert sorted(codes[2:]) == [0, 1]
    eventually(lambda: all(name in pair.two.ok("network", "ls") for name in ("red", "blue", "same")))
    shown = json.loads(pair.two.ok("network", "inspect", "red", "blue", "same"))
    assert len({each["subnet"] for each in shown}) == 3
    assert len({each["options"]["com.docker.network.driver.overlay.vxlanid_list"] for each in shown}) == 3
    assert "cannot have MTU 1500" in refused(
        pair.one, *words, "-o", "com.docker.network.driver.mtu=1500", "big"
    ) or "cannot have MTU 9000" in refused(pair.one, *words, "--mtu", "9000", "big")


def test_store_away(pair: Pair) -> None:
    """Without the store traffic goes on and known instances start; new addresses are refused until it is back."""
    network(pair, "away")
    for host, name in ((pair.one, "left"), (pair.two, "right")):
        host.ok(*RUN, "--name", name, "--network", "away", *SLEEP)
    eventually(lambda: reaches(pair.one, "left", "right"))
    pair.store.kill()
    try:
        assert "the fleet's store 10.77.0.1:2379 does not answer" in refused(
            pair.one, *RUN, "--name", "new", "--network", "away", *SLEEP
        )
        assert "does not answer" in refused(pair.two, "network", "create", "-d", "overlay", "new")
        assert reaches(pair.one, "left", "right")
        pair.two.ok("restart", "-t", "0", "right")
        assert reaches(pair.one, "left", "right")
        eventually(lambda: "the fleet's store" in pair.one.trivet("system", "check").stdout.decode())
        pair.two.ok("rm", "-f", "right")
    finally:
        pair.store.start()
    eventually(lambda: not reaches(pair.one, "left", "right"))
    pair.one.trivet("rm", "-f", "new")
    pair.one.ok(*RUN, "--name", "new", "--network", "away", *SLEEP)
    pair.two.ok(*RUN, "--name", "right", "--network", "away", *SLEEP)
    eventually(lambda: reaches(pair.one, "new", "right"))


def test_host_leaves(pair: Pair) -> None:
    """A host that fell silent is forgotten with its lease and found again; one that was stopped stays."""
    network(pair, "leave")
    for host, name in ((pair.one, "left"), (pair.two, "right")):
        host.ok(*RUN, "--name", name, "--network", "leave", *SLEEP)
    eventually(lambda: reaches(pair.one, "left", "right"))
    assert "dst 10.77.0.3" in tunnel(pair.one)
    pair.two.kill()
    assert reaches(pair.one, "left", "right")
    eventually(lambda: "dst 10.77.0.3" not in tunnel(pair.one))
    assert "bad address" in pair.one.sh("left", "ping -c 1 -W 1 right")
    pair.two.start()
    eventually(lambda: reaches(pair.one, "left", "right"))
    pair.two.stop()
    pair.one.sh("left", "sleep 6")  # twice the lease
    assert reaches(pair.one, "left", "right")
    pair.two.start()
    assert reaches(pair.one, "left", "right")


def test_repair(pair: Pair) -> None:
    """A tunnel deleted by hand is noticed by `system check`, and made again with all it knew."""
    network(pair, "mend")
    for host, name in ((pair.one, "left"), (pair.two, "right")):
        host.ok(*RUN, "--name", name, "--network", "mend", *SLEEP)
    eventually(lambda: reaches(pair.one, "left", "right"))
    (name,) = [line.split("dev ")[1].split()[0] for line in tunnel(pair.one).splitlines() if "dst 10.77.0.3" in line]
    pair.one.place.ip(f"link del {name}")
    assert "is missing" in pair.one.trivet("system", "check").stdout.decode()
    pair.one.ok("system", "check", "--repair")
    assert reaches(pair.one, "left", "right")


def test_machine(pair: Pair) -> None:
    """A machine is on a network across hosts like a container."""
    network(pair, "vm")
    pair.one.ok(*RUN, "--name", "machine", "--isolation", "vm", "--network", "vm", *SLEEP, timeout=240)
    pair.two.ok(*RUN, "--name", "right", "--network", "vm", *SLEEP)
    eventually(lambda: reaches(pair.two, "right", "machine"))
    assert reaches(pair.one, "machine", "right")


def test_no_store(daemon: Host) -> None:
    """An engine without a store says what it lacks."""
    said = refused(daemon, "network", "create", "-d", "overlay", "nowhere")
    assert "need a store that all hosts share" in said
    assert "trivetd --store" in said


POLICY = """
kind: NetworkPolicy
metadata: {name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{ipBlock: {cidr: ADDRESS/32}}]
    ports: [{port: 80}]
"""


@pytest.mark.parametrize("level", ["container", "vm"])
def test_policy(pair: Pair, level: str) -> None:
    """A policy of one host keeps instances of another from its own, by address; the log and `why` say the same."""
    network(pair, "pol")
    script = ("sh", "-c", "httpd -f -p 80 -h /etc & httpd -f -p 81 -h /etc")
    labels = ("--label", "app=db", "--isolation", level)
    pair.one.ok(*RUN, "--name", "db", "--network", "pol", *labels, SLEEP[0], *script, timeout=240)
    for name, level_of in (("api", level), ("web", "container")):
        pair.two.ok(*RUN, "--name", name, "--network", "pol", "--isolation", level_of, *SLEEP, timeout=240)
    addresses = {
        name: json.loads(pair.two.ok("inspect", name))[0]["networks"][0]["addresses"][0].split("/")[0]
        for name in ("api", "web")
    }

    def reached() -> dict[str, bool]:
        words = "timeout 3 wget -qO- http://db:{}/hostname >/dev/null && echo yes"
        asked = [("api", 80), ("api", 81), ("web", 80)]
        return {f"{name}:{port}": pair.two.sh(name, words.format(port)).endswith("yes") for name, port in asked}

    eventually(lambda: all(reached().values()), 60)
    policy = POLICY.replace("ADDRESS", addresses["api"]).encode()
    assert "would be applied" in pair.one.ok("policy", "apply", "--dry-run", "-", input=policy)
    assert all(reached().values())
    pair.one.ok("policy", "apply", "-", input=policy)
    try:
        assert reached() == {"api:80": True, "api:81": False, "web:80": False}
        flows = [json.loads(line) for line in pair.one.ok("policy", "log", "--json").splitlines()]
        denied = {(flow["source"], flow["port"]) for flow in flows if flow["verdict"] == "deny"}
        assert {(addresses["api"], 81), (addresses["web"], 80)} <= denied
    finally:
        pair.one.ok("policy", "rm", "db")
    assert all(reached().values())


SECONDS = 3


def carried(source: Host, sender: str, sink: Host, taker: str) -> tuple[int, float]:
    """How many bytes one instance gets to another, and in how many seconds."""
    clock = "read at rest </proc/uptime; echo $at"
    with ThreadPoolExecutor(1) as pool:
        # nc hangs up when its input ends, and then so does the other one. What was sent may arrive long after.
        take = "rm -f /tmp/f; mkfifo /tmp/f; sleep 60 >/tmp/f & nc -l -p 5001 </tmp/f | wc -c; kill $!"
        taking = pool.submit(sink.sh, taker, f"{clock}; {take}; {clock}")
        eventually(lambda: ":1389 " in sink.sh(taker, "cat /proc/net/tcp /proc/net/tcp6"))
        source.sh(sender, f"timeout {SECONDS} nc {taker} 5001 </dev/zero")
        begun, got, ended, *_ = taking.result().split()
        return int(got), float(ended) - float(begun)


@pytest.mark.parametrize("level", ["container", "vm"])
def test_rates(pair: Pair, level: str) -> None:
    """What an instance gets from another host, and sends there, is held to its rates, for machines on both too."""
    network(pair, "pace")
    for host, name in ((pair.one, "slow"), (pair.two, "peer")):
        host.ok(*RUN, "--name", name, "--network", "pace", "--isolation", level, *SLEEP, timeout=240)
    eventually(lambda: reaches(pair.one, "slow", "peer"), 60)
    ends = {"in": (pair.two, "peer", pair.one, "slow"), "out": (pair.one, "slow", pair.two, "peer")}
    free = {way: carried(*end) for way, end in ends.items()}
    pair.one.ok("update", "--network", "name=pace,rate-in=256kbit,rate-out=256kbit", "slow")
    for way, end in ends.items():
        got, spent = carried(*end)
        assert 1000 < got <= 256_000 / 8 * (spent + 1) + (1 << 18), (way, got, spent)
        assert got / spent < free[way][0] / free[way][1] / 2, (way, got, spent, free)


@pytest.mark.parametrize("version", [4, 6])
def test_why(pair: Pair, version: int) -> None:
    """What `network why` says of packets to other hosts, and from them, is what happens to them."""
    for name in ("near", "far"):
        network(pair, name, "--ipv6")
    serve = ("httpd", "-f", "-p", "[::]:80", "-h", "/etc")
    pair.one.ok(*RUN, "--name", "left", "--network", "near", SLEEP[0], *serve)
    pair.two.ok(*RUN, "--name", "right", "--network", "near", "-p", "8090:80", SLEEP[0], *serve)
    pair.two.ok(*RUN, "--name", "other", "--network", "far", SLEEP[0], *serve)
    at = {}
    for host, name in ((pair.one, "left"), (pair.two, "right"), (pair.two, "other")):
        found = json.loads(host.ok("inspect", name))[0]["networks"][0]["addresses"]
        address = next(each.partition("/")[0] for each in found if (":" in each) == (version == 6))
        at[name] = f"[{address}]" if version == 6 else address
    eventually(lambda: reaches(pair.one, "left", f"-{version} right"))
    ask = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=3).read().decode())"

    def happens(source: str, where: str) -> bool:
        url = f"http://{where}/hostname"
        if source == "host":
            return "Error" not in pair.one.place.run(sys.executable, "-c", ask, url, check=False)
        return pair.one.sh(source, f"timeout 3 wget -qO- {url} >/dev/null && echo yes").endswith("yes")

    def said(source: str, where: str) -> bool:
        return pair.one.trivet("network", "why", source, where).returncode == 0

    asked = {("left", f"{at['right']}:80"): True, ("left", f"{at['other']}:80"): False}
    asked |= {("host", f"{at['left']}:80"): True, ("host", f"{at['right']}:80"): False}
    if version == 4:  # the fabric has no IPv6
        asked |= {("left", "10.77.0.3:8090"): True, ("left", "10.77.0.2:8090"): False}
    for each, expected in asked.items():
        assert happens(*each) == expected, each
        if each[1] != "10.77.0.2:8090":  # who listens on the host's own ports is not asked
            assert said(*each) == expected, each
