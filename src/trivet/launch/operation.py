"""Operations: what the C launcher (and, in a guest, the agent) is asked to do, as data.

A launch plan is a flat list of these. Those before `Spawn` run in the launcher itself, those after
it in the child, in order; the first failure ends the child and is reported with its index and errno.
The wire form is derived from the fields (`codec.encode`), the C table `operations[]` in
`native/executor.c` must list the same names and signatures: a test compares the two.

Paths: "host path" means resolved as the executor sees it at that moment. "root path" means resolved
with openat2(RESOLVE_IN_ROOT) below the directory last given to `Root`, so that a link in a hostile
image can't lead out of it; this holds before and after the pivot.
"""

from __future__ import annotations

from trivet.launch.codec import MAGIC, Operation, encode, signature
from trivet.launch.operation_file import (
    Bind,
    Chroot,
    Directory,
    File,
    Mask,
    Mount,
    Node,
    OpenTree,
    Pivot,
    Propagation,
    ReadOnly,
    RemountRoot,
    Root,
    Symlink,
    Unmount,
    WriteFile,
)
from trivet.launch.operation_launch import (
    Background,
    Builtin,
    Descriptors,
    Exec,
    Find,
    Init,
    Monitor,
    Relay,
    Spawn,
    Sync,
    Wait,
)
from trivet.launch.operation_namespace import (
    AddAddress,
    AddRoute,
    DeviceFilter,
    Hostname,
    Join,
    JoinPath,
    LinkUp,
    Sysctl,
    Unshare,
)
from trivet.launch.operation_process import (
    Affinity,
    Become,
    Capabilities,
    Console,
    Identity,
    IoPriority,
    Keyring,
    MemoryPolicy,
    NoNewPrivileges,
    OomScore,
    Personality,
    Rlimit,
    Scheduler,
    Seccomp,
    Umask,
    User,
    WorkingDirectory,
)

__all__ = [
    "MAGIC",
    "OPERATIONS",
    "AddAddress",
    "AddRoute",
    "Affinity",
    "Background",
    "Become",
    "Bind",
    "Builtin",
    "Capabilities",
    "Chroot",
    "Console",
    "Descriptors",
    "DeviceFilter",
    "Directory",
    "Exec",
    "File",
    "Find",
    "Hostname",
    "Identity",
    "Init",
    "IoPriority",
    "Join",
    "JoinPath",
    "Keyring",
    "LinkUp",
    "Mask",
    "MemoryPolicy",
    "Monitor",
    "Mount",
    "NoNewPrivileges",
    "Node",
    "OomScore",
    "OpenTree",
    "Operation",
    "Personality",
    "Pivot",
    "Propagation",
    "ReadOnly",
    "Relay",
    "RemountRoot",
    "Rlimit",
    "Root",
    "Scheduler",
    "Seccomp",
    "Spawn",
    "Symlink",
    "Sync",
    "Sysctl",
    "Umask",
    "Unmount",
    "Unshare",
    "User",
    "Wait",
    "WorkingDirectory",
    "WriteFile",
    "encode",
    "signature",
]

OPERATIONS: dict[int, type[Operation]] = {kind.code: kind for kind in Operation.__subclasses__()}
