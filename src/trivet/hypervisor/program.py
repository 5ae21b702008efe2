"""Where QEMU's programs are on this machine, and which Debian package brings a missing one."""

from __future__ import annotations

import functools
import platform
import shutil
import subprocess
from pathlib import Path

import msgspec

# Debian 12 ships virtiofsd with QEMU in a directory of its own; later it is a package, in libexec.
_LIBRARY_PATHS = "/usr/lib/qemu:/usr/libexec:/usr/libexec/qemu"


class Tool(msgspec.Struct, frozen=True):
    """A program and the package it comes from."""

    name: str
    package: str

    def find(self) -> str | None:
        """Return its path, None when it isn't installed."""
        return shutil.which(self.name) or shutil.which(self.name, path=_LIBRARY_PATHS)


QEMU = Tool("qemu-system-x86_64", "qemu-system-x86")
VIRTIOFSD = Tool("virtiofsd", "qemu-system-common")
SWTPM = Tool("swtpm", "swtpm")


def missing() -> tuple[str, ...]:
    """Name what this machine lacks for running machines, for people."""
    if platform.machine() != "x86_64":
        return (f"a machine type for {platform.machine()} (only x86_64 has one so far)",)
    return tuple(f"{tool.name} (package {tool.package})" for tool in (QEMU, VIRTIOFSD) if tool.find() is None)


@functools.cache
def version(path: str) -> str:
    """Ask a QEMU for its version, e.g. "7.2.22"."""
    text = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    return text.split("version", 1)[-1].split()[0]


def kvm_device() -> bool:
    """Tell whether the kernel offers virtualization at all; whether a guest boots with it is for `probe`."""
    return Path("/dev/kvm").exists()
