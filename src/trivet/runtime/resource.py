"""From a spec's resources to what the cgroup face takes, and what of them there is no controller for."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from trivet.base.error import InvalidArgument, Unsupported
from trivet.kernel import cgroup_record as kernel
from trivet.kernel.cgroup import Layout
from trivet.oci import runtime as oci
from trivet.runtime import device

# What needs which controller: version 1's name, version 2's; the place in the configuration.
_CONTROLLERS = (
    ("memory", "memory", ("memory", "swap", "reservation", "kernel_tcp", "swappiness"), "memory"),
    ("cpu", "cpu", ("shares", "quota", "period", "burst", "realtime_runtime", "realtime_period", "idle"), "cpu"),
    ("cpuset", "cpuset", ("cpus", "mems"), "cpu"),
    ("pids", "pids", ("pids",), "pids"),
    ("blkio", "io", ("weight", "leaf_weight", "block_devices"), "blockIO"),
    ("hugetlb", "hugetlb", ("huge_pages",), "hugepageLimits"),
    ("net_cls", "", ("net_class",), "network.classID"),
    ("net_prio", "", ("priorities",), "network.priorities"),
    ("rdma", "rdma", ("rdma",), "rdma"),
)
# What version 2 has no file for.
_OLD_ONLY = {
    "memory": {"kernel_tcp": "kernelTCP", "swappiness": "swappiness", "no_oom_killer": "disableOOMKiller"},
    "cpu": {"realtime_runtime": "realtimeRuntime", "realtime_period": "realtimePeriod"},
    "io": {"leaf_weight": "leafWeight"},
}
_WEIGHTS = range(10, 1001)


_PLACES = {new: path for _, new, _, path in _CONTROLLERS[:2]} | {"io": "blockIO"}


class ControllerMissing(Unsupported):
    """A limit that nothing on this machine enforces."""

    def __init__(self, controller: str, path: str, *, delegated: bool = False) -> None:
        words = "was not delegated to this user" if delegated else "isn't there"
        super().__init__(f"the cgroup controller {controller} {words} - at `$.linux.resources.{path}`")


class OnlyVersion1(Unsupported):
    """A limit that version 2 of control groups doesn't have."""

    def __init__(self, path: str) -> None:
        super().__init__(f"version 2 of control groups has no such limit - at `$.linux.resources.{path}`")


class OutOfRange(InvalidArgument):
    """A limit no controller takes."""

    def __init__(self, path: str, value: object) -> None:
        super().__init__(f"{value} is out of range - at `$.linux.resources.{path}`")


def completed(spec: oci.Spec, *, rootless: bool = False) -> oci.Spec:
    """Add the devices that every container may use to a spec's own rules.

    `rootless` leaves all rules out: only root may set them, and an ordinary user's container has no device of its own.
    """
    linux = spec.linux or oci.Linux()
    asked = linux.resources or oci.Resources()
    forbidden, *usual = device.RULES
    rules = () if rootless else (forbidden, *asked.devices, *usual)
    own = msgspec.structs.replace(asked, devices=rules)
    return msgspec.structs.replace(spec, linux=msgspec.structs.replace(linux, resources=own))


def limits(spec: oci.Spec, layout: Layout, *, delegated: bool = False) -> kernel.Resources:
    """Translate a spec's. Raises `ControllerMissing`."""
    made = resources(spec.linux.resources if spec.linux else None, spec.oci_version)
    check(made, layout, delegated=delegated)
    return made


def check(made: kernel.Resources, layout: Layout, *, delegated: bool = False) -> None:
    """Refuse what there is no controller for, or none that was `delegated`. Raises `ControllerMissing`."""
    there = {(h.version, name) for h in layout.hierarchies for name in h.controllers}
    empty = kernel.Resources()
    for old, new, names, path in _CONTROLLERS:
        wanted = any(getattr(made, name) not in (getattr(empty, name), -1) for name in names)
        if wanted and (1, old) not in there and (2, new) not in there:
            raise ControllerMissing(old, path, delegated=delegated)
    for controller, fields in _OLD_ONLY.items():
        for field, word in fields.items():
            if (2, controller) in there and getattr(made, field) not in (getattr(empty, field), -1):
                raise OnlyVersion1(f"{_PLACES[controller]}.{word}")
    if (2, "io") in there and any(device.what == "leaf_weight" for device in made.block_devices):
        raise OnlyVersion1("blockIO.weightDevice[].leafWeight")
    for name, _ in made.unified:
        controller, _, file = name.partition(".")
        if not file or "/" in name:
            raise OutOfRange("unified", repr(name))
        if (2, controller) not in there and controller != "cgroup":
            raise ControllerMissing(controller, "unified", delegated=delegated)


def warnings(spec: oci.Spec) -> Iterator[str]:
    """Tell what kernels have given up enforcing."""
    memory = (spec.linux and spec.linux.resources and spec.linux.resources.memory) or oci.Memory()
    if memory.kernel is not None:
        yield "linux.resources.memory.kernel is left out: kernels have no limit of their own for it any more"
    if memory.use_hierarchy is False:
        yield "linux.resources.memory.useHierarchy is always true"


def resources(spec: oci.Resources | None, version: str = oci.VERSION) -> kernel.Resources:
    """Translate; 0 sets no limit, as every runtime reads it: for pids it depends on the configuration's `version`.

    Raises `OutOfRange`.
    """
    if spec is None:
        return kernel.Resources()
    memory, cpu = spec.memory or oci.Memory(), spec.cpu or oci.Cpu()
    block, network = spec.block_io or oci.BlockIo(), spec.network or oci.NetworkResources()
    if block.weight and block.weight not in _WEIGHTS:
        raise OutOfRange("blockIO.weight", block.weight)
    if memory.swappiness is not None and not 0 <= memory.swappiness <= 100:
        raise OutOfRange("memory.swappiness", memory.swappiness)
    return kernel.Resources(
        memory=memory.limit or None,
        swap=memory.swap or None,
        reservation=memory.reservation or None,
        kernel_tcp=memory.kernel_tcp or None,
        swappiness=memory.swappiness,
        no_oom_killer=bool(memory.disable_oom_killer),
        shares=cpu.shares or None,
        quota=cpu.quota or None,
        burst=cpu.burst,
        period=cpu.period or None,
        realtime_runtime=cpu.realtime_runtime or None,
        realtime_period=cpu.realtime_period or None,
        idle=cpu.idle,
        cpus=cpu.cpus,
        mems=cpu.mems,
        pids=_tasks(spec.pids, version),
        weight=block.weight or None,
        leaf_weight=block.leaf_weight or None,
        block_devices=tuple(_block_devices(block)),
        huge_pages=tuple((limit.page_size, limit.limit) for limit in spec.hugepage_limits),
        net_class=network.class_id,
        priorities=tuple((one.name, one.priority) for one in network.priorities),
        rdma=tuple((name, _rdma(one)) for name, one in sorted(spec.rdma.items())),
        devices=tuple(_rule(rule) for rule in spec.devices),
        unified=tuple(sorted(spec.unified.items())),
    )


def _block_devices(block: oci.BlockIo) -> Iterator[kernel.BlockDevice]:
    for one in block.weight_device:
        for what, value in (("weight", one.weight), ("leaf_weight", one.leaf_weight)):
            if value is not None:
                yield kernel.BlockDevice(what=what, major=one.major, minor=one.minor, value=value)
    throttles = {
        "rbps": block.throttle_read_bps_device,
        "wbps": block.throttle_write_bps_device,
        "riops": block.throttle_read_iops_device,
        "wiops": block.throttle_write_iops_device,
    }
    for what, devices in throttles.items():
        for throttle in devices:
            yield kernel.BlockDevice(what=what, major=throttle.major, minor=throttle.minor, value=throttle.rate)


def _tasks(spec: oci.Pids | None, version: str) -> int | None:
    """Read the limit of tasks: since 1.3.0, 0 lets nobody fork, which is what 1 means to the task that is there."""
    if spec is None or spec.limit is None:
        return None
    if spec.limit == 0:
        return 1 if oci.since(version, (1, 3)) else -1
    return max(spec.limit, -1)


def _rdma(one: oci.Rdma) -> str:
    values = {"hca_handle": one.hca_handles, "hca_object": one.hca_objects}
    return " ".join(f"{name}={value}" for name, value in values.items() if value is not None)


def _rule(rule: oci.DeviceRule) -> kernel.DeviceRule:
    if rule.access.strip("rwm"):
        raise OutOfRange("devices", f"access {rule.access!r}")
    return kernel.DeviceRule(
        allow=rule.allow,
        type=rule.type,
        major=None if rule.major == -1 else rule.major,
        minor=None if rule.minor == -1 else rule.minor,
        access=rule.access or "rwm",
    )
