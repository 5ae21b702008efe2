"""Version 2: one hierarchy for all controllers (Documentation/admin-guide/cgroup-v2.rst).

Access to devices is a BPF program there, not a file: runtime/devicefilter.py.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

from trivet.kernel.cgroup_record import BlockDevice, Hierarchy, Resources, Usage, Write, make, number, read, table

NEEDED = frozenset({"cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma", "misc"})


def controllers(mount: str) -> tuple[str, ...]:
    """Read which of the controllers we use version 2 has; on a hybrid machine perhaps none."""
    try:
        return tuple(name for name in Path(mount, "cgroup.controllers").read_text().split() if name in NEEDED)
    except OSError:
        return ()


class Version2:
    """A directory of the version 2 hierarchy."""

    def __init__(self) -> None:
        self._parents: set[str] = set()  # which handed their controllers down; may be gone by now

    def make(self, hierarchy: Hierarchy, path: str) -> None:
        """Make the group and its parents, handing each parent's controllers down."""
        parent = f"{hierarchy.mount}/{path.rpartition('/')[0]}"
        if parent in self._parents:
            with suppress(FileNotFoundError):
                with suppress(FileExistsError):
                    make(f"{hierarchy.mount}/{path}")
                return
        self._make(hierarchy, path)
        self._parents.add(parent)

    def _make(self, hierarchy: Hierarchy, path: str) -> None:
        directory = hierarchy.mount
        for part in path.split("/"):
            if hierarchy.controllers:
                _delegate(Path(directory))
            directory = f"{directory}/{part}"
            with suppress(FileExistsError):
                make(directory)

    def writes(self, controllers: tuple[str, ...], resources: Resources) -> list[tuple[str, str]]:
        """Compute the files of these controllers."""
        r = resources
        values: list[tuple[str, str, int | str | None]] = [
            ("memory", "memory.max", _limit(r.memory)),
            ("memory", "memory.swap.max", _limit(swap_alone(r))),
            ("memory", "memory.low", _limit(r.reservation)),
            ("cpu", "cpu.weight", cpu_weight(r.shares)),
            ("cpu", "cpu.max", _quota(r)),
            ("cpuset", "cpuset.cpus", r.cpus),
            ("cpuset", "cpuset.mems", r.mems),
            ("pids", "pids.max", _limit(r.pids)),
            ("cpu", "cpu.max.burst", r.burst),
            ("cpu", "cpu.idle", r.idle),
            ("io", "io.weight", None if r.weight is None else f"default {io_weight(r.weight)}"),
            *(("io", *_block_device(device)) for device in r.block_devices),
            *(("hugetlb", f"hugetlb.{size}.max", limit) for size, limit in r.huge_pages),
            *(("rdma", "rdma.max", f"{device} {words}") for device, words in r.rdma),
        ]
        files = [(name, str(value)) for who, name, value in values if who in controllers and value not in (None, "")]
        return files + [pair for pair in r.unified if pair[0].partition(".")[0] in (*controllers, "cgroup")]

    def join(self, directory: str) -> tuple[Write, ...]:
        """Nothing: the child is cloned into the group (CLONE_INTO_CGROUP), see `Group.unified`."""
        return ()

    def usage(self, directory: str, controllers: tuple[str, ...]) -> Usage:
        """Measure what the directory shows."""
        memory = table(_read(directory, "memory.stat"))
        io = [
            dict(pair.split("=", 1) for pair in line.split()[1:]) for line in _read(directory, "io.stat").splitlines()
        ]
        processor = table(_read(directory, "cpu.stat"))
        return Usage(
            cpu=processor.get("usage_usec", 0) * 1000,
            user=processor.get("user_usec", 0) * 1000,
            kernel=processor.get("system_usec", 0) * 1000,
            periods=processor.get("nr_periods", 0),
            throttled_periods=processor.get("nr_throttled", 0),
            throttled=processor.get("throttled_usec", 0) * 1000,
            memory=max(0, number(_read(directory, "memory.current") or "0") - memory.get("inactive_file", 0)),
            memory_limit=number(_read(directory, "memory.max") or "0"),
            pids=number(_read(directory, "pids.current") or "0"),
            read=sum(int(line.get("rbytes", 0)) for line in io),
            written=sum(int(line.get("wbytes", 0)) for line in io),
            out_of_memory=table(_read(directory, "memory.events")).get("oom_kill", 0),
        )

    def freeze(self, directory: str, frozen: bool) -> None:
        """Ask for the state; it is reached a moment later."""
        Path(directory, "cgroup.freeze").write_text("1" if frozen else "0")

    def frozen(self, directory: str) -> bool:
        """Tell whether every process has stopped."""
        return table(_read(directory, "cgroup.events")).get("frozen", 0) == 1

    def kill(self, directory: str) -> None:
        """Kill the whole subtree at once (Linux 5.14); one that is gone, or goes meanwhile, is dead."""
        try:
            Path(directory, "cgroup.kill").write_text("1")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise


def _delegate(directory: Path) -> None:
    offered = NEEDED & set((directory / "cgroup.controllers").read_text().split())
    missing = offered - set((directory / "cgroup.subtree_control").read_text().split())
    for controller in sorted(missing):
        try:
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            # Some controllers can't be handed down everywhere (a threaded or a busy parent); a limit
            # that then isn't there is refused when it is written.
            pass


def _read(directory: str, name: str) -> str:
    try:
        return read(f"{directory}/{name}").decode()
    except OSError:
        return ""


def _limit(value: int | None) -> int | str | None:
    return "max" if value == -1 else value


def swap_alone(r: Resources) -> int | None:
    """Give the limit of swap without memory."""
    if r.swap is None or r.swap == -1 or r.memory is None:
        return r.swap
    return max(0, r.swap - r.memory)


def cpu_weight(shares: int | None) -> int | None:
    """Map 2..262144 to 1..10000, as the specification's runtimes do."""
    return None if not shares else 1 + ((min(max(shares, 2), 262144) - 2) * 9999) // 262142


def io_weight(weight: int | None) -> int | None:
    """Map 10..1000 to 1..10000, as the specification's runtimes do."""
    return None if weight is None else 1 + (weight - 10) * 9999 // 990


def _block_device(device: BlockDevice) -> tuple[str, str]:
    if device.what in ("weight", "leaf_weight"):
        return "io.weight", f"{device.number} {io_weight(device.value)}"
    return "io.max", f"{device.number} {device.what}={device.value or 'max'}"


def _quota(r: Resources) -> str | None:
    if r.quota is None and r.period is None:
        return None
    quota = "max" if r.quota in (None, -1) else str(r.quota)
    return f"{quota} {r.period or 100000}"
