"""The smallest system that a machine of its own can run: Debian's kernel, busybox as /init, a shell on the serial line.

It says what the tests ask about when it comes up, and powers off when somebody presses the button, as systems do.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from trivet.guest import cpio, kernel
from trivet.guest.module import MissingModule, Modules

MODULES = tuple(
    (
        "virtio_pci virtio_blk vfat nls_ascii nls_cp437 button evdev virtio_balloon virtio_net virtiofs virtio_console "
        "pvpanic-mmio"
    ).split()
)
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /mnt
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ PS1='tiny# '
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in $(cat /modules/list); do insmod $module; done
echo "tiny: up with $(ls /sys/block | tr '\\n' ' ')"
for disk in /sys/block/vd*; do
  echo "tiny: $(basename $disk) $(cat $disk/serial) $(cat $disk/size) $(cat $disk/ro)"
done
[ -e /preseed.cfg ] && cat /preseed.cfg
[ -e /sys/firmware/efi ] && echo tiny: uefi || echo tiny: bios
for disk in /dev/vd*; do mount -r -t vfat $disk /mnt 2>/dev/null && cat /mnt/meta-data && echo; done
for name in /sys/class/input/event*/device/name; do
  grep -q 'Power Button' $name || continue
  event=/dev/input/$(basename ${name%/device/name})
  (head -c 1 $event >/dev/null; echo tiny: button pressed; sync; poweroff -f) &
done
mkdir -p /run /var && ln -s /run /var/run
for port in /sys/class/virtio-ports/*; do
  [ -x /sbin/qemu-ga ] && grep -q guest_agent $port/name || continue
  /sbin/qemu-ga -p /dev/$(basename $port) -t /run -f /run/pid &
done
while true; do setsid cttyhack sh; done
"""


CACHE = Path("/var/cache/trivet")
PARAMETERS = "console=ttyS0 quiet tsc=reliable no_timer_check"  # on a busy host emulated timers look broken
INSTALL = """gunzip -c /disk.gz >/dev/vda && sync && echo tiny: installed && reboot -f
"""


def initrd(
    target: Path, cache: Path = CACHE, disk: bytes = b"", further: Sequence[cpio.Entry] = ()
) -> tuple[Path, Path]:
    """Make the system's initramfs; the kernel and it. With the content of a disk, packed, it is an installer."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("no program busybox")
    found = kernel.obtain(cache)
    modules = found.modules()
    order = modules.load_order(tuple(name for name in MODULES if _there(modules, name)))
    entries = [
        *(cpio.directory(name) for name in ("bin", "dev", "modules", "etc", "sbin")),
        cpio.character("dev/console", 5, 1),
        cpio.file("bin/busybox", Path(busybox).read_bytes(), 0o755),
        cpio.file("init", (INIT.replace("while true", INSTALL + "while true") if disk else INIT).encode(), 0o755),
        *([cpio.file("disk.gz", disk)] if disk else []),
        *(cpio.file(f"modules/{name}", modules.read(name)) for name in order),
        cpio.file("modules/list", "".join(f"/modules/{name}\n" for name in order).encode()),
        *further,
    ]
    target.write_bytes(cpio.archive(entries))
    return found.image, target


def agent(scratch: Path) -> list[cpio.Entry]:
    """Give what the distribution's guest agent is made of: the program from its package, and its libraries."""
    kernel.run(["apt-get", "download", "-q", "qemu-guest-agent"], scratch)
    kernel.run(["dpkg-deb", "-x", str(next(scratch.glob("*.deb"))), "tree"], scratch)
    program = scratch / "tree/usr/sbin/qemu-ga"
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    if "not found" in listed:
        pytest.skip(f"not all libraries of qemu-ga are here: {listed}")
    libraries = [word for word in listed.split() if word.startswith("/")]
    places = dict.fromkeys(str(parent) for path in libraries for parent in reversed(Path(path[1:]).parents))
    return [
        *(cpio.directory(place) for place in places if place != "."),
        *(cpio.file(path[1:], Path(path).read_bytes(), 0o755) for path in libraries),
        cpio.file("sbin/qemu-ga", program.read_bytes(), 0o755),
    ]


def _there(modules: Modules, name: str) -> bool:
    """Tell whether the kernel has it as a module; what it has built in needs none."""
    try:
        modules.load_order((name,))
    except MissingModule:
        return False
    return True


def loadable(scratch: Path, target: Path, cache: Path = CACHE) -> None:
    """Write the kernel as loaders want it, from the package that QEMU's came from."""
    release = kernel.obtain(cache).release
    scratch.chmod(0o755)
    kernel.run(["apt-get", "download", "-q", f"linux-image-{release}"], scratch)
    kernel.run(["dpkg-deb", "-x", str(next(scratch.glob("*.deb"))), "tree"], scratch)
    shutil.copy(scratch / f"tree/boot/vmlinuz-{release}", target)
