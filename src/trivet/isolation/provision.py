"""What this machine offers a guest, found or made once and kept in a cache directory.

CACHE/
├── kernel/RELEASE/      see guest/kernel.py
├── initramfs-DIGEST     one for each set of devices
├── template/KEY/        see hypervisor/template.py
└── acceleration         what probe guests have shown
"""

from __future__ import annotations

import os
from pathlib import Path

from trivet.base.error import Unsupported
from trivet.guest import initramfs, kernel
from trivet.hypervisor import probe, program
from trivet.hypervisor.machine import Acceleration
from trivet.isolation import firmware, guest
from trivet.isolation.hardware import Hardware
from trivet.isolation.machine import Host, Origin
from trivet.isolation.plan import Plan
from trivet.kernel import procfs

AGENT = Path(kernel.__file__).parents[1] / "launch/bin/trivet-agent"


def probed(cache: Path) -> Acceleration:
    """Tell how guests run here as far as is known without taking time: emulated, where the kernel offers nothing."""
    return acceleration(cache) if program.kvm_device() and not lacks()[0] else Acceleration.EMULATION


def lacks() -> tuple[tuple[str, ...], str]:
    """Name what is missing on this machine, and a hint what to do about it."""
    missing = program.missing()
    if not AGENT.exists():
        return (*missing, "the guest agent (trivet-agent)"), "make"
    if os.geteuid() != 0:
        return (*missing, "root privileges"), "run the engine as root"
    packages = sorted({tool.package for tool in (program.QEMU, program.VIRTIOFSD) if tool.find() is None})
    return missing, f"apt-get install {' '.join(packages)}" if packages else ""


def acceleration(cache: Path) -> Acceleration:
    """Tell how guests run here; the first time, the guest kernel is fetched and a probe guest booted."""
    return _probed(cache, kernel.obtain(cache))


def acquire(cache: Path, plan: Plan, *, template: bool = False) -> Host:
    """Find or make what an instance's machine boots from, or the `template` it is forked from.

    Raises a `TrivetError` naming what is missing.
    """
    missing, hint = lacks()
    if missing:
        raise Unsupported(f"level vm lacks {', '.join(missing)}", hint=hint or None)
    found = kernel.obtain(cache)
    made = initramfs.build(
        found,
        AGENT,
        cache,
        network=template or any(attachment.kind == "tap" for attachment in plan.attachments),
        share=template or bool(guest.shared(plan)),
    )
    for path in (found.image, made):  # for a QEMU that isn't root; nothing of it is secret
        path.chmod(0o644)
    return Host(
        qemu=_path(program.QEMU),
        virtiofsd=_path(program.VIRTIOFSD),
        acceleration=_probed(cache, found),
        kernel=str(found.image),
        initramfs=str(made),
        cpus=os.cpu_count() or 1,
        most=_whole(procfs.memory()[0]),
    )


def computer(cache: Path, hardware: Hardware) -> Host:
    """Find what a machine with an operating system of its own needs. Raises `Unsupported` naming what is missing."""
    missing, hint = lacks()
    if missing:
        raise Unsupported(f"level vm lacks {', '.join(missing)}", hint=hint or None)
    swtpm = program.SWTPM.find()
    if hardware.tpm and swtpm is None:
        raise Unsupported("cannot give a machine a TPM: swtpm is not installed", hint="apt-get install swtpm")
    return Host(
        qemu=_path(program.QEMU),
        virtiofsd=_path(program.VIRTIOFSD),
        acceleration=probed(cache),
        kernel="",
        initramfs="",
        cpus=os.cpu_count() or 1,
        firmware=firmware.code(secure=hardware.secure_boot) if hardware.firmware == "uefi" else "",
        swtpm=swtpm or "",
    )


def imagined() -> Host:
    """Describe a host without looking, for printing a plan: one that has a template for it."""
    return Host(
        qemu=program.QEMU.name,
        virtiofsd=program.VIRTIOFSD.name,
        acceleration=Acceleration.EMULATION,
        kernel="KERNEL",
        initramfs="INITRAMFS",
        cpus=os.cpu_count() or 1,
        most=_whole(procfs.memory()[0]),
        origin=Origin(memory="TEMPLATE/memory", state="TEMPLATE/state"),
        firmware="FIRMWARE",
        swtpm=program.SWTPM.name,
    )


def _probed(cache: Path, found: kernel.Kernel) -> Acceleration:
    plain = initramfs.build(found, AGENT, cache)
    return probe.acceleration(_path(program.QEMU), found.image, found.release, plain, cache / "acceleration")


def _whole(memory: int) -> int:
    """Round down to a GiB: what a host keeps for itself differs from boot to boot, and templates by this number."""
    return memory >> 30 << 30


def _path(tool: program.Tool) -> str:
    return tool.find() or tool.name
