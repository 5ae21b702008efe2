"""Memory as the host sees it: proportional set size, where a page shared by n processes counts 1/n for each.

What the kernel needs for namespaces, cgroups and mounts belongs to no process and isn't counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from trivet.kernel.procfs import stat

ALL, ANONYMOUS = "Pss:", "Pss_Anon:"


def proportional(pid: int, part: str = ALL) -> int:
    """Return one process's PSS in bytes, all of it or what comes from no file; 0 when it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(part)), 0)


def total(pids: Iterable[int], part: str = ALL) -> int:
    """Return the PSS of several processes in bytes."""
    return sum(proportional(pid, part) for pid in set(pids))


def family(*roots: int) -> set[int]:
    """Return processes with all their descendants."""
    parents = _parents()
    members = {pid for pid in roots if pid in parents}
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return members


def parent(pid: int) -> int:
    """Return the parent of a process; 0 when it has ended."""
    return _parents().get(pid, 0)


def cgroup_members(pid: int) -> set[int]:
    """Return the processes that share the cgroup `pid` is in, as its pids or unified hierarchy tells."""
    for line in _lines(Path(f"/proc/{pid}/cgroup")):
        _, controllers, path = line.split(":", 2)
        mount = "/sys/fs/cgroup/pids" if controllers == "pids" else "/sys/fs/cgroup" if not controllers else ""
        if mount and path != "/":
            return {int(word) for word in _lines(Path(mount + path, "cgroup.procs"))} | {pid}
    return {pid}


def _parents() -> dict[int, int]:
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            found[int(directory.name)] = stat(int(directory.name))[1][1]
        except OSError:
            continue  # it has ended meanwhile
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
