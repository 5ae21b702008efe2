"""CPU time and processes of one peer, by cgroup: its daemon, its commands and its instances, dead ones included.

Everything a peer runs is started while the bench itself is in the peer's group, so that it inherits it. Where
the instances go into groups of their own, these are counted, too (`also`).
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

VERSION_1 = Path("/sys/fs/cgroup/cpuacct")
VERSION_2 = Path("/sys/fs/cgroup")


class Account:
    """A cgroup of the bench's for one peer. On version 1 the hierarchy is cpuacct's, on version 2 the only one."""

    def __init__(self, name: str) -> None:
        self._old = (VERSION_1 / "cpuacct.usage").exists()
        self._mount = VERSION_1 if self._old else VERSION_2
        self.path = f"/trivet-bench-{os.getpid()}/{name}"
        self._groups = [self._mount / self.path[1:]]
        self._groups[0].mkdir(parents=True, exist_ok=True)

    def enter(self) -> None:
        """Move the bench into the group; what it starts from now on is the peer's."""
        _join(self._groups[0])

    def also(self, pid: int) -> None:
        """Count the group above the one that `pid` is in, unless it is below ours."""
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if ("cpuacct" in controllers.split(",") if self._old else not controllers) and path.count("/") > 1:
                group = self._mount / path[1:].rpartition("/")[0]
                if not any(group.is_relative_to(known) for known in self._groups):
                    self._groups.append(group)

    def cpu(self) -> float:
        """Return the CPU time used so far, in seconds."""
        return sum(map(self._usage, self._groups))

    def processes(self) -> set[int]:
        """Return every process of the peer but the bench itself."""
        found: set[int] = set()
        for group in self._groups:
            for file in group.rglob("cgroup.procs"):
                found |= {int(word) for word in file.read_text().split()}
        return found - {os.getpid()}

    def directories(self) -> int:
        """Count the control groups of the peer and of its instances."""
        return sum(1 for group in self._groups for path in group.rglob("*") if path.is_dir())

    def close(self) -> None:
        """Leave and remove the groups of ours, in every hierarchy somebody made them in."""
        _join(self._mount)
        for mount in {*(file.parent for file in Path("/sys/fs/cgroup").glob("*/tasks")), self._mount}:
            group = mount / self.path[1:]
            _remove(group)
            with contextlib.suppress(OSError):  # not there, or other peers' groups are inside
                group.parent.rmdir()

    def _usage(self, group: Path) -> float:
        try:
            if self._old:
                return int((group / "cpuacct.usage").read_text()) / 1e9
            return int((group / "cpu.stat").read_text().split()[1]) / 1e6
        except OSError:
            return 0.0  # it is gone with its last instance


def _join(group: Path) -> None:
    """Move this process. Version 1's `tasks` with "0" spares the wait for a grace period that cgroup.procs has."""
    tasks = group / "tasks"
    (tasks if tasks.exists() else group / "cgroup.procs").write_text("0")


def _remove(group: Path) -> None:
    directories = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True) if group.is_dir() else []
    for directory in (*directories, group):
        for _ in range(50):
            try:
                directory.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)  # the last process is still leaving
                continue
            break
