"""A mount namespace with hardly anything in it, for those to come from whose own it is to be a copy of.

A new mount namespace begins as a copy of its maker's, mount by mount (mount_namespaces(7)): on a host with a thousand
instances that is thousands of mounts that keep the namespaces of others, copied and dropped again for each start.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from trivet.kernel import mount
from trivet.kernel.mount import BIND, DETACH, NO_DEVICES, NO_EXECUTION, NO_SET_USER_ID

_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000
_RECURSIVE, _SLAVE = 0x4000, 0x80000
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_libc = ctypes.CDLL(None, use_errno=True)


def make(place: str, shown: Sequence[str]) -> int:
    """Make one and return its descriptor, with which it ends: an empty tree with `place` and the host's `shown` in it.

    What is mounted below `shown` isn't part of it, unless the host hides something by it. Raises `OSError`.
    """
    made: list[int | OSError] = []

    def work() -> None:
        try:
            made.append(_make(Path(place), shown))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=work, name="lobby")  # it moves there, and must not do anything else any more
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _make(place: Path, shown: Sequence[str]) -> int:
    _do(_libc.unshare(_CLONE_FS | _CLONE_NEWNS), "unshare")
    mount.mount(Path("none"), Path("/"), "", _RECURSIVE | _SLAVE)
    flags = NO_SET_USER_ID | NO_DEVICES | NO_EXECUTION
    mount.mount(Path("lobby"), place, "tmpfs", flags, "mode=755,size=64k")
    for path in (str(place), *shown):
        inside = Path(f"{place}{path}")
        inside.mkdir(parents=True)
        inside.chmod(0o755)  # whatever our umask is: who comes from there is nobody to the host
    for path in shown:
        _show(Path(path), Path(f"{place}{path}"))
    os.chdir(place)
    _do(_libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _do(_libc.umount2(b".", DETACH), "umount")  # the old root lies on the new one now (pivot_root(2), NOTES)
    return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def _show(path: Path, target: Path) -> None:
    try:
        mount.mount(path, target, "", BIND)
    except OSError:  # something below it is locked, as for an engine in a container (mount_namespaces(7))
        mount.mount(path, target, "", BIND | _RECURSIVE)


def _do(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
