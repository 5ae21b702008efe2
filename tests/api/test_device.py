"""Devices of the host in instances."""

from __future__ import annotations

import json

import pytest
from tests.conftest import Daemon


def test_a_device_is_there_and_usable(daemon: Daemon, busybox: str) -> None:
    """--device shows a node under its own or another name, and allows what was asked for and nothing else."""
    script = "stat -c %t:%T /dev/net/tun /dev/other; cat /dev/net/tun 2>&1; cat /dev/other 2>&1; echo x >/dev/other"
    options = ["--device", "/dev/net/tun", "--device", "/dev/kmsg:/dev/other:w"]
    done = daemon.trivet("run", "--rm", *options, busybox, "sh", "-c", script)
    lines = done.stdout.decode().splitlines()
    assert lines[:2] == ["a:c8", "1:b"]
    assert "bad state" in lines[2]  # it was opened: it is read(2) that says so
    assert "Operation not permitted" in lines[3]
    assert "not permitted" not in done.stderr.decode()
    without = daemon.trivet("run", "--rm", "--userns", "host", busybox, "sh", "-c", "mknod /t c 10 200; cat /t")
    assert b"not permitted" in without.stderr


def test_users_with_a_device(daemon: Daemon, busybox: str) -> None:
    """With a device the users are the host's, unless --userns private says otherwise."""
    for options, own in (([], False), (["--userns", "private"], True)):
        shown = daemon.ok("run", "--rm", *options, "--device", "/dev/net/tun", busybox, "cat", "/proc/self/uid_map")
        assert (int(shown.split()[1]) > 0) == own


def test_a_device_by_another_name_among_its_own_users(daemon: Daemon, busybox: str) -> None:
    """Also with users of one's own, where no node can be made, a device has the name that was asked for."""
    options = ["--userns", "private", "--device", "/dev/zero:/dev/deep/other", "--device", "/dev/net/tun"]
    script = "stat -c %t:%T /dev/deep/other /dev/net/tun; head -c 4 /dev/deep/other | wc -c"
    assert daemon.ok("run", "--rm", *options, busybox, "sh", "-c", script).split() == ["1:5", "a:c8", "4"]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--device", "/dev/nothing-here"], 125, "cannot give device /dev/nothing-here: no such file on the host"),
        (["--device", "/etc/passwd"], 125, "cannot give device /etc/passwd: it is not a device"),
        (["--device", "/dev/null:/x:q"], 125, "'q' is not an access"),
        (["--device", "dev/null"], 125, "is not a device"),
        (["--isolation", "vm", "--device", "/dev/null"], 125, "cannot give device /dev/null to a machine"),
    ],
)
def test_what_cannot_be(daemon: Daemon, busybox: str, options: list[str], code: int, says: str) -> None:
    """What is no device, or can't be given, is refused by its name, and no instance is left."""
    before = daemon.client.instances.list(all=True)
    done = daemon.trivet("run", *options, busybox, "true")
    assert says in done.stderr.decode()
    assert done.returncode == code
    assert daemon.client.instances.list(all=True) == before


def test_the_plan_says_so(daemon: Daemon, busybox: str) -> None:
    """--dry-run shows the node that would be given."""
    shown = daemon.ok("run", "--dry-run", "--json", "--device", "/dev/net/tun", busybox, "true")
    assert [each["path"] for each in json.loads(shown)["plan"]["devices"]] == ["/dev/net/tun"]
