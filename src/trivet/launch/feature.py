"""What trivet can't do without in a kernel, tried rather than guessed from its version."""

from __future__ import annotations

import os
import platform
import socket
import subprocess

from trivet.base.error import Unavailable, Unsupported
from trivet.kernel.syscall import numbers
from trivet.launch.launcher import BINARY

CALLS = {
    "memfd_create": "3.17",
    "seccomp": "3.17",
    "fsopen": "5.2",
    "move_mount": "5.2",
    "open_tree": "5.2",
    "clone3": "5.3",
    "pidfd_open": "5.3",
    "openat2": "5.6",
    "close_range": "5.9",
    "mount_setattr": "5.12",
}
"""System calls, and the Linux that brought them (the VERSIONS sections of their man pages)."""

NETLINK = {"links and addresses": socket.NETLINK_ROUTE, "nftables": 12}
"""Families of netlink(7); NETLINK_NETFILTER has no name in Python 3.11."""


class KernelLacks(Unsupported):
    """The kernel is too old, or was built without something."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"cannot run on this kernel ({os.uname().release}): it lacks {what}",
            hint="trivet needs Linux 5.12 or newer with overlay and nftables; Debian 12 has a kernel that does",
        )


def require() -> None:
    """Raise `KernelLacks` with the first thing missing; seldom more than a millisecond."""
    for name in _missing_calls():
        raise KernelLacks(f"{name}(2), which came with Linux {CALLS[name]}")
    for what, family in NETLINK.items():
        try:
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family).close()
        except OSError as error:
            raise KernelLacks(f"{what} ({(error.strerror or str(error)).lower()})") from error


def _missing_calls() -> list[str]:
    table = numbers({"arm64": "aarch64"}.get(platform.machine(), platform.machine()))
    words = [str(table[name]) for name in CALLS]
    try:
        done = subprocess.run([BINARY, "--missing", *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"cannot run the launcher {BINARY}: {error}", hint="make") from error
    missing = set(done.stdout.split())
    return [name for name, word in zip(CALLS, words, strict=True) if word in missing]
