"""Namespaces that nobody has yet: made before they are needed, as making them is a good part of a start.

A spare is a user namespace with a network namespace of its own. It is held by two descriptors only, so that it ends
with the process that made it; `settle` gives it files, which last.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from trivet.base import tree
from trivet.isolation.owner import making
from trivet.isolation.plan import Owner
from trivet.kernel.mount import BIND, drop, mount
from trivet.kernel.namespace import inside
from trivet.launch.operation import JoinPath, LinkUp, Operation, Sysctl
from trivet.launch.spawn import run
from trivet.runtime.namespace import FLAGS

_GET_USER_NAMESPACE = 0xB701  # NS_GET_USERNS: ioctl_nsfs(2)


class Spare:
    """A user and a network namespace, kept at `network` while it is made; ids inside are `first` and up on the host.

    The descriptors don't come by that path: binding by one whose mount has gone would leave a mount behind that nobody
    sees, and the namespace with it, for ever (Linux 6.18).
    """

    def __init__(self, first: int, network: str) -> None:
        self.first = first
        self._descriptors = list(_open(network))

    def __bool__(self) -> bool:
        """Tell whether it is still to be had."""
        return bool(self._descriptors)

    def settle(self, user: str, network: str) -> None:
        """Keep the namespaces at two paths, where nothing is yet; the spare is used up, also when that fails."""
        try:
            for descriptor, path in zip(self._descriptors, (user, network), strict=True):
                tree.make(os.path.dirname(path))
                _touch(path)
                mount(f"/proc/self/fd/{descriptor}", path, "", BIND)
        except BaseException:
            for path in (user, network):
                drop(path)
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Let the namespaces go, if they aren't given away."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def make(owners: Iterable[Owner], sysctls: Iterable[tuple[str, str]], directory: Path) -> list[Spare]:
    """Make one spare for each owner's range, by a single launcher: its start takes longer than the namespaces do.

    They are briefly kept as files in a directory below `directory`; who is killed meanwhile leaves that to `sweep`.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    settings = [Sysctl(name, value) for name, value in sysctls]
    with tempfile.TemporaryDirectory(prefix="spare-", dir=directory) as place, ExitStack() as undo:
        steps: list[Operation] = []
        kept: list[tuple[Owner, str]] = []
        for number, owner in enumerate(owners):
            user, network = f"{place}/user{number}", f"{place}/network{number}"
            _touch(network)
            kept.append((msgspec.structs.replace(owner, path=user), network))
            steps += [making(kept[-1][0], network), JoinPath(network, FLAGS["network"]), *settings, LinkUp("lo")]
        for owner, network in kept:
            undo.callback(drop, Path(owner.path))
            undo.callback(drop, Path(network))
        run(steps)
        return [Spare(owner.first, network) for owner, network in kept]


def having(owner: Owner | None, spare: Spare | None) -> Owner | None:
    """Give an owner the ids of a spare; without one it has no network's namespace, which was an earlier start's."""
    if owner is None or owner.borrowed:
        return owner
    return msgspec.structs.replace(owner, first=spare.first if spare else owner.first, network="")


def sweep(directory: Path) -> None:
    """Let go what somebody left in `directory` who was killed while making spares."""
    for path in directory.glob("*/*"):
        drop(path)
    tree.delete(directory)


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o600))


def _open(path: str) -> tuple[int, int]:
    """Open the network namespace at a path, and the user namespace that it belongs to; the latter comes first."""
    with ExitStack() as undo:
        kept = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, kept)
        with inside(kept):
            network = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return fcntl.ioctl(network, _GET_USER_NAMESPACE), network
        except BaseException:
            os.close(network)
            raise
