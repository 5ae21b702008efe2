"""Storing what a bundle's run came to, so that the next one needn't think it up: see replay.py."""

from __future__ import annotations

import marshal
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from trivet.kernel.cgroup_record import Resources
from trivet.launch.launcher import BINARY
from trivet.launch.operation import Operation, encode
from trivet.runtime import group as groups
from trivet.runtime import replay, replay_launch
from trivet.runtime.container import Container, Kept
from trivet.runtime.rootless import ordinary

MOST = 64  # plans of one --root
_CREATED = 8046347.828125  # a time of creation nobody has, as short in JSON as in Python


def keep(
    container: Container, steps: Callable[[Container], list[Operation]], limits: Callable[[Container], Resources]
) -> None:
    """Store the plan of a container that has run. Best effort: what can't be stored is thought up again next time."""
    try:
        _keep(container, steps, limits)
    except (OSError, ValueError, replay.Unlike):
        pass


def _keep(
    container: Container, steps: Callable[[Container], list[Operation]], limits: Callable[[Container], Resources]
) -> None:
    kept, home = container.kept, str(container.directory.parent)
    path = replay.place(home, kept.bundle)
    if not suits(container):
        return
    token = f"id{secrets.token_hex(8)}"
    stranger = Container(container.directory.parent, _renamed(kept, token))
    group = stranger.group
    spec_root = kept.spec.root
    files = [str(BINARY), *sorted(_own_files())]
    relative = spec_root.path if spec_root else ""
    record = {
        "token": token,
        "created": f'"created":{_CREATED!r}',
        "facts": replay.facts(kept.bundle, home, files, relative),
        "files": files,
        "relative": relative,
        "state": msgspec.json.encode(stranger.kept).decode(),
        "brief": stranger.brief,
        "told": stranger.created,
        "groups": list(group.directories),
        "inherit": [
            f"{directory}/{name}"
            for hierarchy, directory in zip(group.layout.hierarchies, group.directories, strict=True)
            if hierarchy.version == 1 and "cpuset" in hierarchy.controllers
            for name in ("cpuset.cpus", "cpuset.mems")
        ],
        "writes": [(write.path, write.value) for write in group.writes(limits(stranger))],
        "launcher": str(BINARY),
        "plan": [_operation(step, token) for step in steps(stranger)],
    }
    _write(Path(path), sys.version.encode() + b"\0" + marshal.dumps(record))


def _renamed(kept: Kept, token: str) -> Kept:
    group = groups.choose(kept.spec, token, rootless=False)
    return msgspec.structs.replace(kept, id=token, created=_CREATED, group=group)


def suits(container: Container) -> bool:
    """Tell whether nothing is asked for that `replay` doesn't know: no terminal, hook, listener, owner or unit."""
    kept, seccomp = container.kept, container.profile
    process = kept.spec.process
    simple = process is not None and not process.terminal and not (seccomp and seccomp.listener_path)
    hooked = any(getattr(container.hooks, kind) for kind in container.hooks.__struct_fields__)
    given = groups.owner(kept.spec) is not None and container.group.layout.mode == "v2"
    moved = bool(container.linux.net_devices)
    plain = not (kept.rootless or ordinary() or kept.group.unit or kept.group.hierarchies is not None)
    return simple and plain and not (hooked or given or moved) and bool(container.group.directories)


def _operation(step: Operation, token: str) -> tuple[int, object]:
    """Give an operation as bytes, or as its fields where the container's name is in them."""
    fields = list(msgspec.structs.astuple(step))
    if any(isinstance(field, bytes) and token.encode() in field for field in fields):
        raise ValueError("the container's name is where it can't be replaced")
    if token in repr(fields):
        return step.code, fields
    return step.code, encode([step])[20:]  # behind magic, count, code and length


def _own_files() -> set[str]:
    found = {getattr(module, "__file__", None) for name, module in sys.modules.items() if name.startswith("trivet.")}
    return {file for file in found if file} | {replay_launch.__file__}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    others = [each for each in path.parent.iterdir() if each != path]
    for each in others:  # of bundles that are gone; of all when there are too many
        bundle = each.name.replace("@-", "/").replace("@@", "@")
        if len(others) >= MOST or not Path(bundle, "config.json").exists():
            each.unlink(missing_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.rename(path)
