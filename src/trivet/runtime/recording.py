"""Storing what a bundle's run came to, so that the front carries it out the next time (launch/native/front_run.c).

ROOT/plans@/BUNDLE, and BUNDLE@created for one whose program waits for `start`, in the form of record.py; nothing in it
depends on the container's id, for it is made for a stranger's, which is replaced:

    version
    conditions (count; file, from, to, expected) · files of this program (count; file, stamp)
    the root as the configuration names it, what it is · mounted control groups · place of the state, the mount it is on
    the stranger's id
    its time of creation as in state.json and as in the brief, state.json · brief (count; texts)
    groups (count; paths) · files to inherit (count; paths) · writes (count; path, value)
    launcher · operations (count; code, parts (count; place, text)), where the id stands in texts of place 1
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from trivet.kernel.cgroup_record import Resources
from trivet.launch.codec import field
from trivet.launch.launcher import BINARY
from trivet.launch.operation import Operation
from trivet.runtime import group as groups
from trivet.runtime import record
from trivet.runtime.container import Container, Kept
from trivet.runtime.record import listed, number, text
from trivet.runtime.rootless import ordinary

PLANS = "plans@"  # no container's id
MOST = 64  # plans of one --root
_LONGEST = 200  # bytes of a file's name
_VERSION = "trivet-run-1"
_CREATED = 8046347.828125  # a time of creation nobody has, as short in JSON as in Python
_CREATED_SUFFIX = "@created"  # no bundle's, whose every @ is followed by another or a hyphen
_LITERAL, _NAMED = range(2)
_FACTS = ("/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/hostname", "/proc/version")


def keep(
    container: Container,
    steps: Callable[[Container], list[Operation]],
    limits: Callable[[Container], Resources],
    *,
    created: bool = False,
) -> None:
    """Store the plan of a container that has run, or was `created`.

    Best effort: what can't be stored is thought up again next time. Engines make a bundle for each container they
    create, so there only one that comes again is worth it: the first time nothing but a name is left.
    """
    try:
        path = _place(container, created=created)
        if suits(container):
            _write(path, _record(container, steps, limits) if path.exists() or not created else b"")
    except (OSError, ValueError):
        pass


def _place(container: Container, *, created: bool) -> Path:
    name = container.kept.bundle.replace("@", "@@").replace("/", "@-")
    if len(os.fsencode(name)) > _LONGEST:
        raise ValueError("the bundle's path is too long")
    return container.directory.parent / PLANS / (name + _CREATED_SUFFIX if created else name)


def _record(
    container: Container, steps: Callable[[Container], list[Operation]], limits: Callable[[Container], Resources]
) -> bytes:
    kept, home = container.kept, container.directory.parent
    token = f"id{secrets.token_hex(8)}"
    stranger = Container(home, _renamed(kept, token))
    group = stranger.group
    inherited = [
        f"{directory}/{name}"
        for hierarchy, directory in zip(group.layout.hierarchies, group.directories, strict=True)
        if hierarchy.version == 1 and "cpuset" in hierarchy.controllers
        for name in ("cpuset.cpus", "cpuset.mems")
    ]
    return b"".join(
        [
            text(_VERSION),
            listed([*record.rights(), *map(record.whole, (f"{kept.bundle}/config.json", *_FACTS))]),
            listed(map(record.stamped, (str(BINARY), *sorted(_own_files())))),
            *map(text, _root(kept)),
            text(_mounted_groups()),
            text(str(home)),
            text(_mount_of(home)),
            text(token),
            text(f'"created":{_CREATED!r}'),
            text(stranger.created),
            text(msgspec.json.encode(stranger.kept)),
            listed(map(text, stranger.brief.split("\0")[:-1])),
            listed(map(text, group.directories)),
            listed(map(text, inherited)),
            listed(text(write.path) + text(write.value) for write in group.writes(limits(stranger))),
            text(str(BINARY)),
            listed(number(step.code) + listed(_parts(step, token)) for step in steps(stranger)),
        ]
    )


def _root(kept: Kept) -> tuple[str, str]:
    """Tell how the configuration names the root, and what that is."""
    relative = kept.spec.root.path if kept.spec.root else ""
    path = Path(kept.bundle, relative)
    status = path.stat()
    return relative, f"{status.st_dev} {status.st_ino} {path.resolve()}"


def _mounted_groups() -> bytes:
    lines = [line for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n") if b" - cgroup" in line]
    return b"".join(line.split(b" ", 2)[2] + b"\n" for line in lines)


def _mount_of(path: Path) -> str:
    return str(next(parent for parent in (path, *path.parents) if os.path.ismount(parent)))


def _renamed(kept: Kept, token: str) -> Kept:
    group = groups.choose(kept.spec, token, rootless=False)
    return msgspec.structs.replace(kept, id=token, created=_CREATED, group=group)


def suits(container: Container) -> bool:
    """Tell whether nothing is asked for that the front doesn't know: no terminal, hook, listener, owner or unit."""
    kept, seccomp = container.kept, container.profile
    process = kept.spec.process
    simple = process is not None and not process.terminal and not (seccomp and seccomp.listener_path)
    hooked = any(getattr(container.hooks, kind) for kind in container.hooks.__struct_fields__)
    given = groups.owner(kept.spec) is not None and container.group.layout.mode == "v2"
    moved = bool(container.linux.net_devices)
    plain = not (kept.rootless or ordinary() or kept.group.unit or kept.group.hierarchies is not None)
    return simple and plain and not (hooked or given or moved) and bool(container.group.directories)


def _parts(step: Operation, token: str) -> list[bytes]:
    """Give an operation's fields, the container's name apart."""
    found = []
    for value in msgspec.structs.astuple(step):
        if token not in repr(value):
            found.append(_part(value))
        elif isinstance(value, str):
            found.append(number(_NAMED) + text(value))
        elif isinstance(value, tuple):
            found.append(number(_LITERAL) + text(number(len(value))))
            found += [number(_NAMED) + text(item) if token in item else _part(item) for item in value]
        else:
            raise ValueError("the container's name is where it can't be replaced")
    return found


def _part(value: object) -> bytes:
    return number(_LITERAL) + text(field(value))


def _own_files() -> set[str]:
    found = {getattr(module, "__file__", None) for name, module in sys.modules.items() if name.startswith("trivet.")}
    return {file for file in found if file}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    others = [each for each in path.parent.iterdir() if each != path]
    for each in others:  # of bundles that are gone; of all when there are too many
        bundle = each.name.removesuffix(_CREATED_SUFFIX).replace("@-", "/").replace("@@", "@")
        if len(others) >= MOST or not Path(bundle, "config.json").exists():
            each.unlink(missing_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.rename(path)
