"""Namespaces made ahead."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from trivet.engine.instance.owner import Owners
from trivet.engine.instance.stock import Stock
from trivet.isolation.plan import Owner
from trivet.isolation.spare import make
from trivet.kernel import rtnetlink
from trivet.kernel.mount import drop

COUNT = 8
FIRST = 0x7F00_0000


def test_what_was_settled_ends_with_its_files(short_path: Path) -> None:
    """A pair that was given away has the ids it was made for, and is gone with its files: so is what is in there."""
    home = short_path / "home"
    home.mkdir()
    owners = [Owner(path="", first=FIRST + number * 65536) for number in range(COUNT)]
    ends = []
    for number, spare in enumerate(make(owners, [("net/ipv4/ip_forward", "1")], short_path / "spare")):
        user, network = home / f"user{number}", home / f"network{number}"
        spare.settle(str(user), str(network))
        assert not spare
        words = ["nsenter", f"--user={user}", f"--net={network}", "--setuid=0", "cat"]
        shown = [*words, "/proc/self/uid_map", "/proc/sys/net/ipv4/ip_forward"]
        told = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split()
        assert told == ["0", str(owners[number].first), "65536", "1"]
        ends.append(f"tvtest{number}")
        pair = ["ip", "link", "add", "inside", "type", "veth", "peer", "name", ends[-1], "netns", str(os.getpid())]
        subprocess.run(["nsenter", f"--net={network}", *pair], check=True)
    assert all(rtnetlink.link(end) for end in ends)
    with subprocess.Popen(["unshare", "--mount", "sleep", "60"]) as other:  # it has copies of all mounts
        time.sleep(0.2)
        for path in home.iterdir():
            drop(path)
        other.kill()
    deadline = time.monotonic() + 20
    while left := [end for end in ends if rtnetlink.link(end)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_a_crowd_leaves_spares_to_those_who_gain_most(short_path: Path) -> None:
    """Who makes its own at little cost takes one while it starts alone, and none while others start as well."""
    stock = Stock(Owners(list, 0), short_path / "spare")
    try:
        stock.refill()
        deadline = time.monotonic() + 60
        while not (taken := stock.take(cheap=True)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        taken.close()
        with stock.starting():
            alone = stock.take(cheap=True)
            assert alone
            alone.close()
            with stock.starting():
                assert stock.take(cheap=True) is None
                other = stock.take()
                assert other
                other.close()
    finally:
        stock.close()
