"""Capabilities by name, and as the bit masks the kernel speaks (capabilities(7))."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""

_DEFAULT = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE
"""

ALL = tuple(f"CAP_{name}" for name in _NAMES.split())
"""In the kernel's order: the place is the bit."""

DEFAULT = tuple(f"CAP_{name}" for name in _DEFAULT.split())
"""Docker's default set without NET_RAW: raw sockets let a neighbour be spoofed (CVE-2020-13401)."""

_BIT = {name: bit for bit, name in enumerate(ALL)}


def known(name: str) -> bool:
    """Tell whether `name` (CAP_...) is a capability at all."""
    return name in _BIT


def mask(names: Iterable[str]) -> int:
    """Fold names into a mask. Raises KeyError for an unknown one."""
    value = 0
    for name in names:
        value |= 1 << _BIT[name]
    return value


def names(bits: int) -> tuple[str, ...]:
    """Spell a mask out, in the kernel's order."""
    return tuple(name for name, bit in _BIT.items() if bits >> bit & 1)


def available(status: Path = Path("/proc/self/status")) -> tuple[str, ...]:
    """Read which capabilities this process could pass on (its bounding set)."""
    for line in status.read_text().splitlines():
        if line.startswith("CapBnd:"):
            return names(int(line.split()[1], 16))
    return ()


def has(name: str) -> bool:
    """Tell whether this process has a right now."""
    with Path("/proc/self/status").open() as status:
        words = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(words.split()[1], 16) & mask((name,)))
