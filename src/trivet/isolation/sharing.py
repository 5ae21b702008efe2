"""Directories of the host in a machine of its own: each gathered where only its server sees it, and served by one.

    DIRECTORY/share/TAG         the directory, in the mount namespace of the servers, read-only where it shall be
    DIRECTORY/share-TAG.sock    where its virtiofsd listens; shown in QEMU's cell as /share/TAG

virtiofsd goes into a sandbox of its own, in which there is nothing but the directory.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from trivet.base.error import InvalidArgument
from trivet.hypervisor.device.share import Share
from trivet.isolation import cell
from trivet.isolation.plan import Mount, Plan
from trivet.launch.operation import Background, Bind, Operation
from trivet.launch.operation import Mount as MountOperation
from trivet.runtime.mount import NO_DEVICE, NO_SUID, READ_ONLY

MOST = 8
_INSIDE = "/share"
_LONGEST = 36  # of a tag (struct virtio_fs_config)


def tag(mount: Mount) -> str:
    """Name what is mounted, as `mount -t virtiofs TAG` inside wants it: by where it belongs."""
    return mount.target.strip("/").replace("/", "-")[-_LONGEST:]


def check(plan_name: str, mounts: tuple[Mount, ...]) -> None:
    """Refuse what can't be shared. Raises `InvalidArgument`."""
    for mount in mounts:
        if mount.kind != "bind":
            raise InvalidArgument(f"machine {plan_name} cannot have {mount.target} in memory: its system does that")
        if mount.mine:
            raise InvalidArgument(f"{mount.target} of machine {plan_name} cannot be mine: nobody in it is the engine's")
        if not Path(mount.source).is_dir():
            raise InvalidArgument(f"{mount.source} is no directory: only these are shared with machine {plan_name}")
    tags = [tag(mount) for mount in mounts]
    if len(set(tags)) < len(tags):
        raise InvalidArgument(f"two shared directories of machine {plan_name} would have one name in it")
    if len(tags) > MOST:
        raise InvalidArgument(f"machine {plan_name} can have at most {MOST} shared directories")


def shares(plan: Plan) -> tuple[Share, ...]:
    """Describe the devices, with sockets as QEMU sees them."""
    return tuple(
        Share(tag=tag(mount), socket=f"{_INSIDE}/{number}", name=f"share{number}")
        for number, mount in enumerate(plan.mounts)
    )


def serve(plan: Plan, virtiofsd: str) -> list[Operation]:
    """Gather the directories, and start their servers. Read-only is enforced here, where no guest can undo it."""
    if not plan.mounts:
        return []
    stage = f"{plan.directory}/share"
    found: list[Operation] = [
        MountOperation("tmpfs", "tmpfs", stage, NO_SUID | NO_DEVICE, ("mode=755", "size=1m"), host=1)
    ]
    for number, mount in enumerate(plan.mounts):
        place, socket = f"{stage}/{number}", _socket(plan, number)
        safe = (READ_ONLY if mount.read_only else 0) | NO_DEVICE
        found += [
            Bind(mount.source, place, recursive=int(mount.recursive), attributes=safe, host=1),
            Background(
                argv=(
                    *(virtiofsd, f"--socket-path={socket}", "-o", f"source={place}", "-o", "sandbox=namespace"),
                    # Attributes are asked for again every time: what the host changes is seen at once.
                    *("-o", "announce_submounts", "-o", "cache=auto", "-o", "timeout=0", "-o", "xattr"),
                    "--rlimit-nofile=0",
                ),
                log=f"{socket}.log",
                ready=socket,
            ),
        ]
    return found


def shown(plan: Plan) -> list[Operation]:
    """Show QEMU the sockets."""
    return [Bind(_socket(plan, number), f"{_INSIDE}/{number}", recursive=0) for number in range(len(plan.mounts))]


def prepare(plan: Plan) -> None:
    """Make room, and remove what an earlier start has left."""
    if plan.mounts:
        Path(plan.directory, "share").mkdir(mode=0o700, exist_ok=True)
    for path in Path(plan.directory).glob("share-*"):
        path.unlink(missing_ok=True)


def admit(plan: Plan) -> None:
    """Let QEMU, and nobody else but root, connect to the servers, which are there."""
    for number in range(len(plan.mounts)):
        os.chown(_socket(plan, number), cell.user(plan), -1)


def commands(plan: Plan) -> list[list[str]]:
    """Say how the guest mounts them: cloud-init's bootcmd, at every boot."""
    return [["sh", "-c", _line(mount)] for mount in plan.mounts]


def _line(mount: Mount) -> str:
    target, option = shlex.quote(mount.target), "ro" if mount.read_only else "rw"
    mounting = f"mount -t virtiofs -o {option} {shlex.quote(tag(mount))} {target}"
    return f"mountpoint -q {target} || {{ mkdir -p {target} && {mounting}; }}"


def _socket(plan: Plan, number: int) -> str:
    return f"{plan.directory}/share-{number}.sock"
