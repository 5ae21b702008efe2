"""The contract, part two: who the program is and what it may do."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conformance.harness import Harness

from trivet.isolation.failure import UnknownUser
from trivet.isolation.plan import Rlimit, Security

WHO = 'echo "$(id -u) $(id -g) $(id -G)"'


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "0 0 0 10"),
        ("root", "0 0 0 10"),
        ("0", "0 0 0 10"),
        ("ann", "1000 1000 1000 50 63"),
        ("1000", "1000 1000 1000 50 63"),
        ("bob", "1001 50 50 63"),
        ("ann:staff", "1000 50 50"),
        ("ann:63", "1000 63 63"),
        ("4242", "4242 0 0"),
        ("4242:4343", "4242 4343 4343"),
        ("1:", "1 0 0"),
    ],
)
def test_user(instance: Harness, user: str, expected: str) -> None:
    """User and group are found by name or number as Docker finds them, with their supplementary groups."""
    uid, gid, *groups = instance.shell(WHO, user=user).text.split()
    wanted_uid, wanted_gid, *wanted = expected.split()
    assert (uid, gid, sorted(set(groups))) == (wanted_uid, wanted_gid, sorted(set(wanted)))


@pytest.mark.parametrize("user", ["nobody-here", "ann:nogroup", "-1", "4294967295", "4294967296", "2147483648", "1e3"])
def test_bad_user_is_refused(instance: Harness, user: str) -> None:
    """Unknown names and numbers out of range are refused, never taken for root (CVE-2024-40635, CVE-2026-30892)."""
    with pytest.raises(UnknownUser, match=user):
        instance.run("id", user=user)


def test_additional_groups(instance: Harness) -> None:
    """Groups asked for come on top, by name or number."""
    groups = instance.run("id", "-G", user="4242:4343", groups=("audio", "77")).text.split()
    assert set(groups) == {"4343", "63", "77"}


def test_home(instance: Harness) -> None:
    """HOME is the user's, unless the plan has one."""
    assert instance.shell("echo $HOME", user="ann").text == "/home/ann"
    assert instance.shell("echo $HOME", user="ann", env=("HOME=/x",)).text == "/x"


def test_user_can_write_to_its_streams(instance: Harness) -> None:
    """A user without rights can open /dev/stdout and /dev/stderr by name, as log files are configured."""
    result = instance.shell("echo a > /dev/stdout; echo b > /dev/stderr", user="ann")
    assert (result.stdout, result.stderr) == (b"a\n", b"b\n")


def test_resource_limits(instance: Harness) -> None:
    """Resource limits hold; those above what the host allows are clamped."""
    limits = (Rlimit("NOFILE", 100, 200), Rlimit("CORE", 0, 0))
    assert instance.shell("ulimit -Sn; ulimit -Hn; ulimit -c", rlimits=limits).lines == ["100", "200", "0"]


def test_capabilities(instance: Harness) -> None:
    """The program has just the plan's capabilities, and nothing inheritable (CVE-2022-24769)."""
    instance.only_with("capabilities dropped")
    security = Security(capabilities=("CAP_CHOWN", "CAP_KILL"))
    assert _capabilities(instance, security=security) == {"Inh": 0, "Prm": 0x21, "Eff": 0x21, "Bnd": 0x21, "Amb": 0}
    assert _capabilities(instance, security=security, user="ann") == {
        "Inh": 0,
        "Prm": 0,
        "Eff": 0,
        "Bnd": 0x21,
        "Amb": 0,
    }


def _capabilities(instance: Harness, **changes: Any) -> dict[str, int]:
    lines = instance.run("grep", "^Cap", "/proc/self/status", **changes).lines
    return {line[3:6]: int(line.split()[1], 16) for line in lines}


def test_no_new_privileges(instance: Harness) -> None:
    """A program can't gain what it wasn't given."""
    instance.only_with("capabilities dropped")
    assert instance.run("grep", "NoNewPrivs", "/proc/self/status").text.split()[1] == "1"


def test_system_call_filter(instance: Harness) -> None:
    """The filter is in force where the level has one."""
    mode = instance.run("grep", "^Seccomp:", "/proc/self/status").text.split()[1]
    assert mode == ("2" if instance.expect("system calls filtered") else "0")
