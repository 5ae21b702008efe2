"""Policies through the command: applied to running instances, tried dry, logged, kept over a restart of the engine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.api.test_network import Nets, refused
from tests.conftest import Daemon

pytestmark = pytest.mark.needs("root", "nft")

POLICY = """
kind: NetworkPolicy
metadata: {name: pol-db, annotations: {trivet.log: "true"}}
spec:
  podSelector: {matchLabels: {app: pol-db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: pol-api}}}]
    ports: [{port: 80}]
"""


@pytest.fixture
def nets(daemon: Daemon, busybox: str) -> Iterator[Nets]:
    """Networks and instances of a test."""
    with ExitStack() as stack:
        stack.callback(daemon.trivet, "policy", "rm", "pol-db")
        yield Nets(daemon, busybox, stack)


def test_a_policy(nets: Nets) -> None:
    """Only who has the label reaches the instance, at the port that is allowed; the log and `why` say the same."""
    nets.network("pol")
    serve = ("sh", "-c", "httpd -f -p 80 -h /etc & httpd -f -p 81 -h /etc")
    for name in ("pol-db", "pol-api", "pol-web"):
        nets.run(name, "--network", "pol", "--label", f"app={name}", command=serve)

    def reached() -> dict[str, bool]:
        words = "timeout 2 wget -qO- http://pol-db:{}/hostname >/dev/null && echo yes"
        asked = [("pol-api", 80), ("pol-api", 81), ("pol-web", 80)]
        return {f"{name}:{port}": nets.sh(name, words.format(port)).endswith("yes") for name, port in asked}

    deadline = time.monotonic() + 30
    while not all(reached().values()):
        assert time.monotonic() < deadline
    dry = nets.daemon.ok("policy", "apply", "--dry-run", "-", input=POLICY.encode())
    assert "policy pol-db would be applied" in dry
    assert "pol-api → pol-db: everything → 80/tcp" in dry
    assert "pol-web → pol-db: everything → nothing" in dry
    assert "pol-db → pol-web" not in dry
    assert all(reached().values())
    assert (
        nets.daemon.ok("network", "policy", "apply", "-", input=POLICY.encode()).replace("applied", "would be applied")
        == dry
    )
    wanted = {"pol-api:80": True, "pol-api:81": False, "pol-web:80": False}
    assert reached() == wanted
    for target, passes in wanted.items():
        name, _, port = target.partition(":")
        done = nets.daemon.trivet("network", "why", name, f"pol-db:{port}")
        assert (done.returncode == 0) == passes, done
    nets.daemon.ok("restart", "-t", "0", "pol-db")
    nets.run("pol-late", "--network", "pol", "--label", "app=pol-api")
    deadline = time.monotonic() + 30
    while not nets.sh("pol-late", "timeout 2 wget -qO- http://pol-db/hostname >/dev/null && echo yes").endswith("yes"):
        assert time.monotonic() < deadline
    assert reached() == wanted
    flows = [json.loads(line) for line in nets.daemon.ok("policy", "log", "--json").splitlines()]
    seen = {(flow["verdict"], flow["source_name"], flow["port"], flow["policy"]) for flow in flows}
    assert {("deny", "pol-web", 80, ""), ("deny", "pol-api", 81, ""), ("allow", "pol-api", 80, "pol-db")} <= seen
    assert "app=pol-db" in nets.daemon.ok("policy", "ls")
    removed = nets.daemon.ok("policy", "rm", "pol-db")
    assert "pol-web → pol-db: nothing → everything" in removed
    assert all(reached().values())
    assert "no such policy: pol-db" in refused(nets, "policy", "rm", "pol-db")


def test_what_is_no_policy(nets: Nets) -> None:
    """A document that can't be meant is refused with the place, and nothing is in force."""
    for old, new, words in (
        ("port: 80", "port: 0", "1 to 65535 is possible"),
        ("{podSelector: {matchLabels: {app: pol-api}}}", "{ipBlock: {cidr: 10.0.0.1/8}}", "no range of addresses"),
        ("name: pol-db", "name: Pol DB", "is invalid"),
        ("ingress:", "inlet:", "spec.inlet: is not known"),
    ):
        done = nets.daemon.trivet("policy", "apply", "-", input=POLICY.replace(old, new).encode())
        assert done.returncode, new
        assert words in done.stderr.decode(), done.stderr
    assert "pol-db" not in nets.daemon.ok("policy", "ls")
