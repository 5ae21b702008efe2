"""Guests whose control groups are version 2 only: Debian on its own kernel, started by the project's own hypervisor.

The root is Debian's smallest system with systemd, made once (build/unified/); this checkout, with its environment, is a
second drive at the same path. What is written to the third drive comes back.

initramfs /init ─▶ drives, overlay ─▶ "plain": the commands, cgroup2 mounted │ "systemd": PID 1, the commands as a unit
"""

from __future__ import annotations

import hashlib
import io
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from enum import StrEnum
from pathlib import Path

import msgspec

from trivet.guest import cpio, initramfs
from trivet.guest import kernel as kernels
from trivet.hypervisor.device.drive import Drive
from trivet.hypervisor.device.serial import Console
from trivet.hypervisor.machine import MEBIBYTE, Machine, command_line
from trivet.hypervisor.program import QEMU
from trivet.isolation import provision
from trivet.isolation.vm import CACHE

CHECKOUT = Path(__file__).parents[2]
SYSTEM = "systemd,systemd-sysv,libpam-systemd,dbus,dbus-user-session,kmod,iproute2,uidmap"
PACKAGES = f"{SYSTEM},python3,busybox-static,runc,crun,nftables,util-linux"
NETWORK = """veth bridge br_netfilter nf_tables nft_ct nft_chain_nat nft_nat nft_masq nft_redir nft_reject_inet
nft_fib_inet nft_limit nft_log nft_hash nft_meta_bridge nft_reject_bridge nf_conntrack_bridge
nfnetlink_log nf_conntrack_netlink"""
ROOM = 16 * MEBIBYTE
LIBRARIES = r"\.venv/lib/python3[^/]*/site-packages"
EXCLUDED = rf"^(build|\.git|\..*_cache|bench|demo|docs|\.hypothesis|{LIBRARIES}/(mypy|ruff|docker).*|\.venv/bin/ruff)$"

INIT = """#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc; $bb mount -t sysfs sysfs /sys; $bb mount -t devtmpfs dev /dev
for name in $($bb cat /modules/list); do $bb insmod $name; done
$bb mkdir /lower /above /new
$bb mount -t erofs -o ro /dev/vda /lower
$bb mount -t tmpfs tmpfs /above
$bb mkdir /above/upper /above/work
$bb mount -t overlay -o lowerdir=/lower,upperdir=/above/upper,workdir=/above/work overlay /new
$bb mount -t ext4 /dev/vdd /new/tmp
$bb chmod 1777 /new/tmp
$bb mkdir -p /new@CHECKOUT@
$bb mount -t erofs -o ro /dev/vdb /new@CHECKOUT@
$bb cp /script /new/script
$bb cp /unit /new/etc/systemd/system/script.service
$bb cp /target /new/etc/systemd/system/script.target
$bb ln -sf script.target /new/etc/systemd/system/default.target
$bb mount --move /dev /new/dev
$bb umount /sys; $bb umount /proc
exec $bb switch_root /new @INIT@
"""
PLAIN = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts /dev/shm /sys/fs/cgroup/init
ln -s /proc/self/fd /dev/fd; ln -s fd/0 /dev/stdin; ln -s fd/1 /dev/stdout; ln -s fd/2 /dev/stderr
mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm
echo $$ > /sys/fs/cgroup/init/cgroup.procs
ip link set lo up
"""
SCRIPT = """
mkdir -p /tmp/back
cd @CHECKOUT@
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1 HOME=/root LANG=C.UTF-8
(@COMMAND@; echo $? > /tmp/back/code) 2>&1 | tee /tmp/back/output > /dev/console
tar -C /tmp/back -cf /dev/vdc .
sync
echo o > /proc/sysrq-trigger
sleep 60
"""
UNIT = """[Service]
Type=oneshot
ExecStart=/bin/sh /script
Delegate=yes
StandardOutput=null
TimeoutStartSec=infinity
"""
TARGET = """[Unit]
Requires=dbus.service script.service
After=dbus.service
"""


class Kind(StrEnum):
    """Who is PID 1."""

    PLAIN = "plain"
    SYSTEMD = "systemd"


class Answer(msgspec.Struct, frozen=True):
    """What came back from a guest."""

    code: int
    output: str
    files: dict[str, bytes]


class GuestSilent(Exception):
    """A guest that brought nothing back; tells what its console, and so the command, said last."""


def root(store: Path = CHECKOUT / "build/unified") -> Path:
    """Give the guests' root as an image, made now unless it is there."""
    image = store / f"root-{hashlib.sha256(PACKAGES.encode()).hexdigest()[:12]}.erofs"
    if image.exists():
        return image
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=store) as scratch:
        Path(scratch).chmod(0o755)  # apt works as a user of its own below it
        tree, made = Path(scratch, "tree"), Path(scratch, "root.erofs")
        bootstrap = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={PACKAGES}"]
        private = ["unshare", "--mount", "--propagation", "private"]
        _run([*private, *bootstrap, "--format=directory", "bookworm", str(tree)], 600)
        shutil.rmtree(tree / "usr/share/doc", ignore_errors=True)
        _run(["mkfs.erofs", str(made), str(tree)], 120)
        made.replace(image)
    return image


def run(kind: Kind, command: list[str], scratch: Path, *, seconds: float = 280) -> Answer:
    """Boot a guest, run a command of this checkout in it, and bring back its exit code, words and /tmp/back."""
    kernel = kernels.obtain(CACHE)
    checkout, back, console = scratch / "checkout.erofs", scratch / "back", scratch / "console"
    _run(["mkfs.erofs", f"--exclude-regex={EXCLUDED}", str(checkout), str(CHECKOUT)], 120)
    with back.open("wb") as file:
        file.truncate(ROOM)
    space = scratch / "space"
    with space.open("wb") as file:
        file.truncate(1024 * MEBIBYTE)
    _run(["mkfs.ext4", "-q", "-O", "^has_journal", str(space)], 60)
    archive = scratch / "initramfs"
    archive.write_bytes(cpio.archive(_entries(kernel, kind, command)))
    machine = Machine(
        name="unified",
        program=QEMU.find() or QEMU.name,
        acceleration=provision.acceleration(CACHE),
        memory=1536 * MEBIBYTE,  # the kernel lets a user have a process per 256 KiB, and a fork bomb has 5000
        cpus=2,
        kernel=str(kernel.image),
        initramfs=str(archive),
        console=Console(log=str(console)),
        drives=(
            Drive(name="root", path=str(root()), read_only=True),
            Drive(name="checkout", path=str(checkout), read_only=True),
            Drive(name="back", path=str(back)),
            Drive(name="scratch", path=str(space)),
        ),
    )
    try:
        _run(list(command_line(machine)), seconds)
        return _answer(back)
    except (subprocess.TimeoutExpired, tarfile.TarError, KeyError) as error:
        said = console.read_text(errors="replace")[-4000:] if console.exists() else "nothing"
        raise GuestSilent(f"{error}; its console:\n{said}") from error


def _entries(kernel: kernels.Kernel, kind: Kind, command: list[str]) -> list[cpio.Entry]:
    modules = kernel.modules()
    order = modules.load_order((*initramfs.ALWAYS, *NETWORK.split()))
    init = "/sbin/init" if kind is Kind.SYSTEMD else "/script"
    script = SCRIPT.replace("@CHECKOUT@", str(CHECKOUT)).replace("@COMMAND@", shlex.join(command))
    script = (PLAIN if kind is Kind.PLAIN else "#!/bin/sh\n") + script
    return [
        *(cpio.directory(name) for name in ("bin", "dev", "proc", "sys", "modules")),
        cpio.character("dev/console", 5, 1),
        cpio.file("init", INIT.replace("@CHECKOUT@", str(CHECKOUT)).replace("@INIT@", init).encode(), 0o755),
        cpio.file("bin/busybox", Path("/bin/busybox").read_bytes(), 0o755),
        cpio.file("script", script.encode(), 0o755),
        cpio.file("unit", UNIT.encode()),
        cpio.file("target", TARGET.encode()),
        *(cpio.file(f"modules/{name}", modules.read(name)) for name in order),
        cpio.file("modules/list", "".join(f"/modules/{name}\n" for name in order).encode()),
    ]


def _answer(back: Path) -> Answer:
    with tarfile.open(fileobj=io.BytesIO(back.read_bytes())) as archive:
        files = {m.name.removeprefix("./"): b"".join(archive.extractfile(m) or ()) for m in archive if m.isfile()}
    return Answer(int(files.pop("code")), files.pop("output").decode(errors="replace"), files)


def _run(argv: list[str], seconds: float) -> None:
    subprocess.run(
        argv,
        check=True,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
    )
