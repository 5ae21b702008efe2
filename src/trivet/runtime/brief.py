"""ROOT/ID/brief: what the runtime's front (launch/native/front.h) has to know about a container; fields end with NUL.

A version, letters for what the front may do, the freezer's file and what is in it when all is frozen, what `state`
prints before and behind status and pid, and the directories of the control group.
"""

from __future__ import annotations

import msgspec

from trivet.kernel.cgroup import Group
from trivet.oci import runtime as oci

NAME = "brief"
_VERSION = "trivet-brief-1"
_LIVE = '"status": "running",\n  "pid": 1,'
_FROZEN = {1: ("freezer.state", "FROZEN"), 2: ("cgroup.events", "frozen 1")}


def told(state: oci.State, root: str, created: str) -> str:
    """Write a state as `state` prints it."""
    fields = msgspec.to_builtins(state) | {"rootfs": root, "created": created}
    return msgspec.json.format(msgspec.json.encode(fields), indent=2).decode() + "\n"


def brief(state: oci.State, root: str, created: str, hooks: oci.Hooks, group: Group, *, unit: bool) -> str:
    """Build a container's brief."""
    head, live, tail = told(msgspec.structs.replace(state, status="running", pid=1), root, created).partition(_LIVE)
    plain_start = not (hooks.start_container or hooks.poststart)
    plain_delete = not (hooks.poststop or unit)  # systemd is asked to remove its units
    fields = (
        _VERSION,
        "s" * plain_start + "d" * plain_delete,
        *_freezer(group),
        head,
        tail,
        *group.directories,
    )
    return "".join(f"{field}\0" for field in fields) if live else ""


def _freezer(group: Group) -> tuple[str, str]:
    for hierarchy, directory in zip(group.layout.hierarchies, group.directories, strict=True):
        if "freezer" in hierarchy.controllers or hierarchy.version == 2:
            name, words = _FROZEN[hierarchy.version]
            return f"{directory}/{name}", words
    return "", ""
