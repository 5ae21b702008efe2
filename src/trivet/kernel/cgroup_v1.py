"""Version 1: one hierarchy per controller (Documentation/admin-guide/cgroup-v1)."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from trivet.kernel.cgroup_record import Hierarchy, Resources, Usage, Write, make, number, read, table


class Version1:
    """A directory of a version 1 hierarchy."""

    def make(self, hierarchy: Hierarchy, path: str) -> None:
        """Make the group and its parents; a cpuset is empty, and takes no task, until it is given CPUs and memory.

        Parents that we made give theirs to what is made below them (cgroup.clone_children).
        """
        parent, _, _ = path.rpartition("/")
        directory = f"{hierarchy.mount}/{path}"
        try:
            make(directory)
        except FileExistsError:
            pass
        except FileNotFoundError:
            self.make(hierarchy, parent)
            if "cpuset" in hierarchy.controllers:
                Path(hierarchy.mount, parent, "cgroup.clone_children").write_text("1")
            with suppress(FileExistsError):
                make(directory)
        if "cpuset" in hierarchy.controllers:
            _inherit(hierarchy.mount, path)

    def writes(self, controllers: tuple[str, ...], resources: Resources) -> list[tuple[str, str]]:
        """Compute the files of these controllers, in the order they must be written."""
        return [
            (name, str(value))
            for controller in controllers
            for name, value in _FILES.get(controller, _nothing)(resources)
            if value not in (None, "")
        ]

    def join(self, directory: str) -> tuple[Write, ...]:
        """Write 0, the task that writes."""
        return (Write(f"{directory}/tasks", "0"),)

    def usage(self, directory: str, controllers: tuple[str, ...]) -> Usage:
        """Measure what these controllers know."""
        total = Usage()
        for controller in controllers:
            reader = _USAGE.get(controller)
            if reader is not None and Path(directory).is_dir():
                total = total.merge(reader(Path(directory)))
        return total

    def freeze(self, directory: str, frozen: bool) -> None:
        """Ask for the state; it is reached a moment later."""
        Path(directory, "freezer.state").write_text("FROZEN" if frozen else "THAWED")

    def frozen(self, directory: str) -> bool:
        """Tell whether every task has stopped."""
        try:
            return read(f"{directory}/freezer.state").strip() == b"FROZEN"
        except FileNotFoundError:
            return False

    def kill(self, directory: str) -> None:
        """Kill those who are listed now; new ones may have been forked meanwhile, so the caller repeats."""
        try:
            pids = read(f"{directory}/cgroup.procs").split()
        except FileNotFoundError:
            return
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass


def _inherit(mount: str, path: str) -> None:
    """Give an empty cpuset its parent's; the parent first, which another may have made and not yet filled."""
    parent, _, _ = path.rpartition("/")
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read(f"{mount}/{path}/{name}").strip():
            if parent and not read(f"{mount}/{parent}/{name}").strip():
                _inherit(mount, parent)
            Path(mount, path, name).write_bytes(read(f"{mount}/{parent}/{name}"))


_Value = int | str | None


def _nothing(_: Resources) -> list[tuple[str, _Value]]:
    return []


def _memory(r: Resources) -> list[tuple[str, _Value]]:
    return [
        ("memory.limit_in_bytes", r.memory),
        ("memory.memsw.limit_in_bytes", r.swap),
        ("memory.soft_limit_in_bytes", r.reservation),
        ("memory.kmem.tcp.limit_in_bytes", r.kernel_tcp),
        ("memory.swappiness", r.swappiness),
        ("memory.oom_control", 1 if r.no_oom_killer else None),
    ]


def _cpu(r: Resources) -> list[tuple[str, _Value]]:
    return [
        ("cpu.shares", r.shares),
        ("cpu.cfs_period_us", r.period),
        ("cpu.cfs_quota_us", r.quota),
        ("cpu.cfs_burst_us", r.burst),
        ("cpu.rt_period_us", r.realtime_period),
        ("cpu.rt_runtime_us", r.realtime_runtime),
        ("cpu.idle", r.idle),
    ]


def _cpuset(r: Resources) -> list[tuple[str, _Value]]:
    return [("cpuset.cpus", r.cpus), ("cpuset.mems", r.mems)]


def _pids(r: Resources) -> list[tuple[str, _Value]]:
    return [("pids.max", "max" if r.pids == -1 else r.pids)]


def _blkio(r: Resources) -> list[tuple[str, _Value]]:
    weights: list[tuple[str, _Value]] = [("blkio.weight", r.weight), ("blkio.leaf_weight", r.leaf_weight)]
    return [*weights, *((_BLOCK_FILES[d.what], f"{d.number} {d.value}") for d in r.block_devices)]


_BLOCK_FILES = {
    "weight": "blkio.weight_device",
    "leaf_weight": "blkio.leaf_weight_device",
    "rbps": "blkio.throttle.read_bps_device",
    "wbps": "blkio.throttle.write_bps_device",
    "riops": "blkio.throttle.read_iops_device",
    "wiops": "blkio.throttle.write_iops_device",
}


def _hugetlb(r: Resources) -> list[tuple[str, _Value]]:
    return [(f"hugetlb.{size}.limit_in_bytes", limit) for size, limit in r.huge_pages]


def _net_cls(r: Resources) -> list[tuple[str, _Value]]:
    return [("net_cls.classid", r.net_class)]


def _net_prio(r: Resources) -> list[tuple[str, _Value]]:
    return [("net_prio.ifpriomap", f"{name} {priority}") for name, priority in r.priorities]


def _rdma(r: Resources) -> list[tuple[str, _Value]]:
    return [("rdma.max", f"{device} {words}") for device, words in r.rdma]


def _devices(r: Resources) -> list[tuple[str, _Value]]:
    return [("devices.allow" if rule.allow else "devices.deny", rule.text()) for rule in r.devices]


_FILES = {
    "memory": _memory,
    "cpu": _cpu,
    "cpuset": _cpuset,
    "pids": _pids,
    "blkio": _blkio,
    "devices": _devices,
    "hugetlb": _hugetlb,
    "net_cls": _net_cls,
    "net_prio": _net_prio,
    "rdma": _rdma,
}


def _memory_usage(directory: Path) -> Usage:
    used = number((directory / "memory.usage_in_bytes").read_text())
    inactive = table((directory / "memory.stat").read_text()).get("total_inactive_file", 0)
    return Usage(
        memory=max(0, used - inactive),
        memory_limit=number((directory / "memory.limit_in_bytes").read_text()),
        out_of_memory=table((directory / "memory.oom_control").read_text()).get("oom_kill", 0),
    )


def _account_usage(directory: Path) -> Usage:
    return Usage(
        cpu=int((directory / "cpuacct.usage").read_text()),
        user=int((directory / "cpuacct.usage_user").read_text()),
        kernel=int((directory / "cpuacct.usage_sys").read_text()),
    )


def _cpu_usage(directory: Path) -> Usage:
    values = table((directory / "cpu.stat").read_text())
    return Usage(
        periods=values.get("nr_periods", 0),
        throttled_periods=values.get("nr_throttled", 0),
        throttled=values.get("throttled_time", 0),
    )


def _pids_usage(directory: Path) -> Usage:
    return Usage(pids=int((directory / "pids.current").read_text()))


def _blkio_usage(directory: Path) -> Usage:
    path = directory / "blkio.throttle.io_service_bytes"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    sums = {
        word: sum(int(line[2]) for line in lines if len(line) == 3 and line[1] == word) for word in ("Read", "Write")
    }
    return Usage(read=sums["Read"], written=sums["Write"])


_USAGE = {
    "memory": _memory_usage,
    "cpuacct": _account_usage,
    "cpu": _cpu_usage,
    "pids": _pids_usage,
    "blkio": _blkio_usage,
}
