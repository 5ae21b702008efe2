"""Who a program runs as: Docker's user forms, looked up in a hostile image."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivet.launch.operation import Become, Exec, Identity, Operation, Root, Spawn, User
from trivet.launch.spawn import LaunchError, run

pytestmark = pytest.mark.needs("root")
PASSWD = """\
root:x:0:0:root:/root:/bin/sh
ana:x:1000:1000::/home/ana:/bin/sh
bob:x:1001:50::/home/bob:
bad:x:-1:70000000000::/:
12:x:77:77::/:
"""
GROUP = """\
root:x:0:
ana:x:1000:
users:x:50:ana,bob
wheel:x:60:root,ana
odd:x:nan:ana
"""
Ids = tuple[int, int, list[int], str]


def image(base: Path, passwd: str | None = PASSWD, group: str | None = GROUP) -> Path:
    """An image root with these files."""
    (base / "etc").mkdir(exist_ok=True)
    for name, text in (("passwd", passwd), ("group", group)):
        if text is not None:
            (base / "etc" / name).write_text(text)
    return base


def become(root: Path, *identity: Operation) -> Ids:
    """The uid, gid, groups and HOME a program really gets."""
    script = "grep -E '^(Uid|Gid|Groups):' /proc/self/status; echo Home: $HOME"
    plan = [Spawn(), Root(str(root)), *identity, Become(), Exec(("sh", "-c", script), ("PATH=/bin:/usr/bin",))]
    lines = dict(line.split(":", 1) for line in run(plan, timeout=20).output.decode().splitlines())
    uids, gids = set(lines["Uid"].split()), set(lines["Gid"].split())
    assert len(uids) == len(gids) == 1
    return int(uids.pop()), int(gids.pop()), sorted(map(int, lines["Groups"].split())), lines["Home"].strip()


@pytest.mark.parametrize(
    ("spec", "groups", "expected"),
    [
        ("", (), (0, 0, [0, 60], "/root")),
        ("root", (), (0, 0, [0, 60], "/root")),
        ("ana", (), (1000, 1000, [50, 60, 1000], "/home/ana")),
        ("1000", (), (1000, 1000, [50, 60, 1000], "/home/ana")),
        ("1000:", (), (1000, 1000, [50, 60, 1000], "/home/ana")),
        ("ana:wheel", (), (1000, 60, [60], "/home/ana")),
        ("ana:61", (), (1000, 61, [61], "/home/ana")),
        (":50", (), (0, 50, [50], "/root")),
        ("1", (), (1, 0, [0], "/")),
        ("12", (), (12, 0, [0], "/")),
        ("4242:4343", (), (4242, 4343, [4343], "/")),
        ("2147483647", (), (2147483647, 0, [0], "/")),
        ("bob", ("wheel", "99"), (1001, 50, [50, 60, 99], "/home/bob")),
    ],
)
def test_docker_forms(tmp_path: Path, spec: str, groups: tuple[str, ...], expected: Ids) -> None:
    """Names, numbers, groups and their combinations give Docker's ids."""
    assert become(image(tmp_path), User(spec, groups)) == expected


@pytest.mark.parametrize(
    "spec", ["-1", "2147483648", "4294967295", "4294967296", "0:-1", "0:2147483648", "99999999999999999999999", "bad"]
)
def test_ids_out_of_range_are_refused(tmp_path: Path, spec: str) -> None:
    """An id that would wrap to another one is an invalid argument (CVE-2024-40635)."""
    with pytest.raises(LaunchError) as caught:
        become(image(tmp_path), User(spec))
    assert caught.value.errno == 22


@pytest.mark.parametrize("spec", ["nobody-here", "ana:nogroup", "ana:odd:", "roo", "rootx", "+1", " 1", "-"])
def test_unknown_names_are_not_found(tmp_path: Path, spec: str) -> None:
    """A name that no line defines is not found, never root."""
    with pytest.raises(LaunchError) as caught:
        become(image(tmp_path), User(spec))
    assert caught.value.errno == 2


def fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def leading_out(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def climbing_out(path: Path, outside: Path) -> None:
    path.symlink_to("../" * 20 + str(outside).lstrip("/"))


def huge(path: Path, outside: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def device(path: Path, outside: Path) -> None:
    os.mknod(path, 0o020666, os.makedev(1, 5))


def directory(path: Path, outside: Path) -> None:
    path.mkdir()


def magic(path: Path, outside: Path) -> None:
    path.symlink_to("/proc/self/root/etc/passwd")


@pytest.mark.parametrize("trap", [fifo, leading_out, climbing_out, huge, device, directory, magic])
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_hostile_files_cost_nothing_and_give_nothing(tmp_path: Path, name: str, trap: object) -> None:
    """A FIFO, a link out of the image, a device or a gigabyte ends the look-up at once with an error."""
    root = tmp_path / "root"
    root.mkdir()
    outside = tmp_path / "outside"
    outside.write_text("eve:x:0:0::/:\n")
    image(root, PASSWD if name == "group" else None, GROUP if name == "passwd" else None)
    assert callable(trap)
    trap(root / "etc" / name, outside)
    begun = time.process_time()
    with pytest.raises(LaunchError):
        become(root, User("eve" if name == "passwd" else "ana:eve"))
    assert become(root, User("7:8"))[:3] == (7, 8, [8])
    assert time.process_time() - begun < 2


def test_a_link_inside_the_image_is_followed(tmp_path: Path) -> None:
    """Images that link /etc/passwd to a place of their own work."""
    image(tmp_path)
    (tmp_path / "etc/passwd").rename(tmp_path / "real")
    (tmp_path / "etc/passwd").symlink_to("/real")
    assert become(tmp_path, User("ana"))[0] == 1000


def test_numeric_identity_takes_ids_as_they_are(tmp_path: Path) -> None:
    """The runtime-spec's ids are used without a look-up; HOME is still found."""
    assert become(image(tmp_path), Identity(1000, 5, ("6", "7"))) == (1000, 5, [6, 7], "/home/ana")


NAMES = st.from_regex(r"[a-c]{1,2}", fullmatch=True)
NUMBERS = st.integers(0, 5).map(str)
USERS = st.lists(st.tuples(NAMES | NUMBERS, st.integers(0, 5), st.integers(0, 5)), max_size=5)
GROUPS = st.lists(st.tuples(NAMES, st.integers(0, 5), st.lists(NAMES | NUMBERS, max_size=3)), max_size=5)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(USERS, GROUPS, NAMES | NUMBERS | st.just(""), st.none() | NAMES | NUMBERS | st.just(""))
def test_any_files_and_any_user_agree_with_docker(
    users: list[tuple[str, int, int]], groups: list[tuple[str, int, list[str]]], user: str, group: str | None
) -> None:
    """For any passwd, group and user the ids are those of Docker's rules, restated here in ten lines."""
    passwd = "".join(f"{name}:x:{uid}:{gid}::/:\n" for name, uid, gid in users)
    table = "".join(f"{name}:x:{gid}:{','.join(members)}\n" for name, gid, members in groups)
    spec = user if group is None else f"{user}:{group}"
    with tempfile.TemporaryDirectory() as base:
        root = image(Path(base), passwd, table)
        try:
            found: tuple[int, int, list[int]] | None = become(root, User(spec))[:3]
        except LaunchError:
            found = None
    assert found == dockers(users, groups, user, group)


def dockers(
    users: list[tuple[str, int, int]], groups: list[tuple[str, int, list[str]]], user: str, group: str | None
) -> tuple[int, int, list[int]] | None:
    """Docker's rules (moby/sys/user GetExecUser), the primary group among the supplementary ones."""
    wanted = int(user or "0") if not user or user.isdigit() else None
    match = next(((n, u, g) for n, u, g in users if (u == wanted if wanted is not None else n == user)), None)
    if match is None and wanted is None:
        return None
    name, uid, gid = match or ("", wanted or 0, 0)
    extra: list[int] = []
    if group:
        numbers = [int(group)] if group.isdigit() else [g for n, g, _ in groups if n == group]
        if not numbers:
            return None
        gid = numbers[0]
    elif match:
        extra = [g for _, g, members in groups if name in members]
    return uid, gid, sorted({gid, *extra})
