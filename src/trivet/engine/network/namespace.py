"""Network namespaces as files: they outlive the engine, and end when the file is unmounted.

Made by the launcher in a process of its own: `unshare` in this one would move a single thread.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from trivet.isolation.owner import hold, let_go
from trivet.isolation.plan import Owner
from trivet.isolation.spare import Spare
from trivet.kernel import sockdiag
from trivet.kernel.mount import drop
from trivet.kernel.namespace import inside
from trivet.launch.operation import Bind, JoinPath, Operation, Sysctl, Unshare
from trivet.launch.spawn import run

log = logging.getLogger(__name__)

CLONE_NEWNET = 0x40000000
BEFORE = (
    # IPv4 only for now; loopback keeps ::1.
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv6/conf/default/accept_ra", "0"),
)
"""Kernel parameters that must be set before an interface comes. What a container has besides is set by its own plan.

In the host's /proc each costs a walk past those of all other namespaces, as the kernel keeps them under one name.
"""
SYSCTLS = (
    *BEFORE,
    # Inside its own network a program may listen on any port, and ping, without being root.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
)


def create(path: Path, owner: Owner | None = None, spare: Spare | None = None) -> None:
    """Make a network namespace and keep it at `path`; one left there by an earlier attempt is replaced.

    With an owner it belongs to a user namespace that is made with it, or is a spare's, which has the owner's ids.
    """
    remove(path)
    if owner and spare:
        let_go(owner)
        spare.settle(owner.path, str(path))
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    try:
        sysctls = [Sysctl(name, value) for name, value in (BEFORE if owner else SYSCTLS)]
        if owner:
            hold(owner, str(path), [JoinPath(str(path), CLONE_NEWNET), *sysctls])
        else:
            run([Unshare(CLONE_NEWNET), *sysctls, Bind("/proc/self/ns/net", str(path), host=1, make=0, recursive=0)])
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def configure(path: Path, steps: Sequence[Operation]) -> None:
    """Change interfaces and routes inside a namespace."""
    if steps:
        run([JoinPath(str(path), CLONE_NEWNET), *steps])


def remove(path: Path) -> bool:
    """Let a namespace go, with all its interfaces; missing is fine. False if it may stay for a while.

    What its programs were about to send would keep it, with its address, for as long as nobody takes it.
    """
    gone = _end_connections(path)
    drop(path)
    return gone


def _end_connections(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        with inside(descriptor):
            sockdiag.end_orphans()
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file where no namespace was mounted
            log.debug("cannot end the connections of %s: %s", path, error)
            return False
    finally:
        os.close(descriptor)
    return True
