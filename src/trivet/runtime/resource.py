"""From a spec's resources to what the cgroup face takes."""

from __future__ import annotations

from trivet.kernel import cgroup_record as kernel
from trivet.oci import runtime as oci


def resources(spec: oci.Resources | None) -> kernel.Resources:
    """Translate; a limit of 0 pids means none, as the specification says."""
    if spec is None:
        return kernel.Resources()
    memory, cpu = spec.memory or oci.Memory(), spec.cpu or oci.Cpu()
    return kernel.Resources(
        memory=memory.limit,
        swap=memory.swap,
        reservation=memory.reservation,
        shares=cpu.shares,
        quota=cpu.quota,
        period=cpu.period,
        cpus=cpu.cpus,
        mems=cpu.mems,
        pids=(spec.pids.limit or -1) if spec.pids else None,
        weight=spec.block_io.weight if spec.block_io else None,
        devices=tuple(_rule(rule) for rule in spec.devices),
        unified=tuple(sorted(spec.unified.items())),
    )


def _rule(rule: oci.DeviceRule) -> kernel.DeviceRule:
    return kernel.DeviceRule(
        allow=rule.allow,
        type=rule.type,
        major=None if rule.major == -1 else rule.major,
        minor=None if rule.minor == -1 else rule.minor,
        access=rule.access,
    )
