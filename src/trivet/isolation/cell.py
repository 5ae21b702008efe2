"""Where a machine's QEMU lives: alone, as a user of its own, with what it needs open and nothing else in sight.

    /usr /lib /lib64        the host's, read-only: QEMU, its libraries and firmware
    /dev/null urandom kvm   (the last one where there is one to use)
    /proc                   with itself in it and nobody else
    /kernel /initramfs      read-only
    /thaw                   what becomes a frozen QEMU (in those that do)
    /share.sock             where virtiofsd listens, if anything is shared

Drives, console, control socket, memory, state and interfaces are descriptors, opened before. It is in network, IPC,
UTS, pid and mount namespaces of its own, without capabilities, and behind QEMU's own filter of system calls.
A machine with shared directories keeps user 0, as whom virtiofsd listens: without capabilities, and with the same view.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from trivet.hypervisor.machine import Acceleration, Machine
from trivet.isolation import guest
from trivet.isolation.plan import Plan
from trivet.launch import launcher
from trivet.launch.operation import (
    Become,
    Bind,
    Capabilities,
    Give,
    GiveListener,
    GiveTap,
    Identity,
    Mount,
    NoNewPrivileges,
    Operation,
    Pivot,
    RemountRoot,
    Root,
    Unshare,
)
from trivet.runtime.mount import NO_DEVICE, NO_EXEC, NO_SUID, READ_ONLY
from trivet.runtime.namespace import FLAGS

IMAGE, UPPER, CONSOLE, CONTROL = 40, 41, 42, 43
FIRST_USER, USERS = 0x4000_0000, 0x1000_0000
PLACE, SHARE_SOCKET = "cell", "/share.sock"

THAWING = "/thaw"
THAW = Path(launcher.__file__).with_name("bin") / "trivet-thaw"

_SHOWN = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")
_KVM = Path("/dev/kvm")


def user(plan: Plan) -> int:
    """Give the id of the user, and of his group, that a machine's QEMU runs as: nobody else's on this host."""
    return FIRST_USER + int.from_bytes(hashlib.sha256(plan.id.encode()).digest()[:4]) % USERS


def inside(made: Machine) -> Machine:
    """Name things as QEMU sees them."""
    share = msgspec.structs.replace(made.share, socket=SHARE_SOCKET) if made.share else None
    return msgspec.structs.replace(made, kernel="/kernel", initramfs="/initramfs", share=share)


def gifts(plan: Plan, console: str, control: str, taps: list[tuple[int, str, str]]) -> list[Operation]:
    """Open what QEMU gets: `taps` are descriptors with the path of a device, or else its name."""
    return [
        Give(plan.root.lowers[0], 0, IMAGE),
        Give(plan.root.upper, 1, UPPER),
        Give(console, 2, CONSOLE),
        GiveListener(control, CONTROL),
        *(Give(path, 1, number) if path else GiveTap(name, number) for number, path, name in taps),
    ]


def walls(plan: Plan, made: Machine, share: str, *, thawing: bool = False) -> list[Operation]:
    """Leave everything behind that isn't QEMU's."""
    shown: list[Operation] = [
        Bind(made.kernel, "/kernel", recursive=0, attributes=READ_ONLY),
        Bind(made.initramfs, "/initramfs", recursive=0, attributes=READ_ONLY),
        *([Bind(str(THAW), THAWING, recursive=0, attributes=READ_ONLY)] if thawing else []),
        *([Bind(share, SHARE_SOCKET, recursive=0)] if guest.shared(plan) else []),
    ]
    own = None if guest.shared(plan) else user(plan)
    accelerated = made.acceleration is Acceleration.KVM
    return [*around(f"{plan.directory}/{PLACE}", shown, accelerated=accelerated), *rights(own, accelerated=accelerated)]


def around(
    place: str, shown: Sequence[Operation], inside: Sequence[Operation] = (), *, accelerated: bool
) -> list[Operation]:
    """Leave everything behind but programs and what is `shown`; what is to be done `inside` is, before it is sealed."""
    devices = ("null", "urandom", *(("kvm",) if accelerated else ()))
    return [
        # Once more a mount namespace: virtiofsd stays in the other one, which has what it serves.
        Unshare(FLAGS["mount"] | FLAGS["network"] | FLAGS["ipc"] | FLAGS["uts"]),
        Mount("tmpfs", "tmpfs", place, NO_SUID | NO_DEVICE | NO_EXEC, ("mode=755", "size=64k"), host=1),
        Root(place),
        *(Bind(path, path, attributes=READ_ONLY | NO_SUID | NO_DEVICE, optional=1) for path in _SHOWN),
        *(Bind(f"/dev/{name}", f"/dev/{name}", recursive=0) for name in devices),
        Mount("proc", "proc", "/proc", NO_SUID | NO_DEVICE | NO_EXEC, ("subset=pid",)),
        *shown,
        Pivot(),
        *inside,
        RemountRoot(READ_ONLY | NO_SUID | NO_DEVICE | NO_EXEC),
    ]


def rights(own: int | None, *, accelerated: bool) -> list[Operation]:
    """Become a user, if not None, and give every right up."""
    groups = (str(_KVM.stat().st_gid),) if accelerated and _KVM.exists() else ()
    become: list[Operation] = [] if own is None else [Identity(own, own, groups), Become()]
    return [*become, Capabilities(0, 0, 0, 0), NoNewPrivileges()]
