"""What a runtime-spec leaves to the runtime: where the root is, which groups are joined, who watches."""

from __future__ import annotations

import msgspec

from trivet.kernel.cgroup_record import Hierarchy, Write
from trivet.launch.operation import Monitor, Operation


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """The surroundings of one launch.

    `root` is the directory that becomes the root; `mount` shows the root file system there, inside the
    instance's own mount namespace. `joins` and `unified` put the program into its cgroup; `hierarchies` is
    what a mount of type "cgroup" shows. `network` runs in the program's network namespace. `user` is Docker's
    "name|uid[:group|gid]", looked up inside, instead of the spec's numbers. Without `monitor` the launch is a
    task. With `init` process 1 is a tiny init of ours, and the program its child. `pivot` False uses chroot
    instead (an initramfs can't be pivoted away from). With `own_kernel` (a VM) every kernel parameter may be set.
    With `conducted` the program is the caller's child, with `preserved` descriptors of the caller's; `hooked` makes
    it stop before it leaves the host's root. `keyring` False keeps the session keyring. `bundle` is what relative
    sources start from, `group` the control group's path, `parent` the mount that `root` lies on. `owners` is the file
    of the user namespace that is joined: what `mount` and mounts of kind idmap show is owned as in there, where the
    file system can show that. `owner` is who its root is outside. `ordinary` says that the launcher is not root: its
    starter maps the ids, and what needs rights is done in the child's user namespace. `confined` has no device nodes
    made, which only the root of the whole machine may. `mounts` is a descriptor of the launcher's: the mount namespace
    that a container with a user namespace has a copy of, instead of the host's.
    """

    root: str
    mount: tuple[Operation, ...] = ()
    monitor: Monitor | None = None
    joins: tuple[Write, ...] = ()
    unified: str = ""
    hierarchies: tuple[Hierarchy, ...] = ()
    network: tuple[Operation, ...] = ()
    user: str | None = None
    groups: tuple[str, ...] = ()
    stdin: bool = False
    wait: bool = True
    init: bool = False
    own_kernel: bool = False
    pivot: bool = True
    builtin: str = ""
    conducted: bool = False
    preserved: int = 0
    hooked: bool = False
    keyring: bool = True
    bundle: str = ""
    group: str = ""
    parent: str = ""
    owners: str = ""
    owner: int = 0
    ordinary: bool = False
    confined: bool = False
    mounts: int = 0
