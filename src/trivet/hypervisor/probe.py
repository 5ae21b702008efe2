"""Whether hardware acceleration works: tried by booting a guest, because nothing less tells.

Inside some virtual machines /dev/kvm opens and makes VMs, and yet a Linux guest spins forever before its
first process. The answer is remembered by what it depends on: host kernel, QEMU, guest kernel.
"""

from __future__ import annotations

import platform
import subprocess
import tempfile
import threading
from pathlib import Path

from trivet.hypervisor import program
from trivet.hypervisor.device.serial import Console
from trivet.hypervisor.machine import MEBIBYTE, Acceleration, Machine, command_line

_DEADLINE = 8.0  # seconds; with real acceleration the probe guest takes well under one
_GREETING = b"trivet-agent"
_lock = threading.Lock()


def acceleration(qemu: str, kernel: Path, release: str, initramfs: Path, memory: Path) -> Acceleration:
    """Return what guests can run with here; `memory` is the file that remembers the answers."""
    if not program.kvm_device():
        return Acceleration.EMULATION
    key = f"{platform.release()} {program.version(qemu)} {release}"
    with _lock:
        known = _recall(memory)
        if key not in known:
            known[key] = Acceleration.KVM if _boots(qemu, kernel, initramfs) else Acceleration.EMULATION
            memory.parent.mkdir(parents=True, exist_ok=True)
            memory.write_text("".join(f"{value}\t{name}\n" for name, value in known.items()))
        return known[key]


def _recall(memory: Path) -> dict[str, Acceleration]:
    lines = memory.read_text().splitlines() if memory.exists() else []
    pairs = [line.split("\t", 1) for line in lines]
    return {pair[1]: Acceleration(pair[0]) for pair in pairs if len(pair) == 2 and pair[0] in set(Acceleration)}


def _boots(qemu: str, kernel: Path, initramfs: Path) -> bool:
    """Boot a guest whose agent has no port to speak to: it greets on the console and powers off."""
    with tempfile.TemporaryDirectory(prefix="trivet-probe-") as scratch:
        console = Path(scratch, "console.log")
        machine = Machine(
            name="probe",
            program=qemu,
            acceleration=Acceleration.KVM,
            memory=192 * MEBIBYTE,
            cpus=1,
            kernel=str(kernel),
            initramfs=str(initramfs),
            console=Console(log=str(console)),
            balloon=None,
        )
        try:
            subprocess.run(command_line(machine), stdin=subprocess.DEVNULL, capture_output=True, timeout=_DEADLINE)
        except subprocess.TimeoutExpired:
            return False
        return console.exists() and _GREETING in console.read_bytes()
