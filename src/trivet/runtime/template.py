"""Plans of exec, kept with a container so that the front (launch/native/front.h) carries out what was asked for before.

ROOT/ID/exec@N, written when `create`, `run` or `exec` by the ordinary way is done, holds under which conditions a plan
is right, and the plan, with places for what differs from one program to the next: arguments, environment, working
directory, and the process ids of that moment (record.py):

    version, signature · conditions (count; file, from, to, expected) · launcher, its stamp
    environment (count; texts), working directory: the container's own
    operations (count; code, parts (count; place, text))
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from trivet.launch.codec import field
from trivet.launch.launcher import BINARY
from trivet.launch.operation import Join, Operation
from trivet.oci import runtime as oci
from trivet.runtime import record
from trivet.runtime.container import Container
from trivet.runtime.record import listed, number, text

MOST = 8
PLAIN = "plain"
"""The signature of an exec whose options name nothing but environment and working directory."""
_VERSION = b"trivet-exec-1"
_LITERAL, _PID, _ARGUMENTS, _ENVIRONMENT, _DIRECTORY, _MONITOR = range(6)
_STRANGER = 2147483629  # above any pid (proc(5), pid_max)
_TOKEN = "trivet-9b1f0c5e7a"
_PARTED = {
    (f"{_TOKEN}-argument",): _ARGUMENTS,
    (f"{_TOKEN}-variable",): _ENVIRONMENT,
    f"/{_TOKEN}-directory": _DIRECTORY,
    f"/{_TOKEN}-monitor": _MONITOR,
}

Steps = Callable[[oci.Process, int, str], list[Operation]]
"""Computes the plan of a process, for the pid of the container's program and the monitor's directory."""


def signature(raw: bytes) -> str:
    """Tell what a process as JSON asks for besides what a template leaves open."""
    asked = json.loads(raw)
    rest = {name: value for name, value in asked.items() if name not in ("args", "env", "cwd")}
    return json.dumps(rest, separators=(",", ":"), ensure_ascii=False)


def signatures(raw: bytes) -> tuple[str, ...]:
    """Tell by what further programs with the rights of a configuration's own process are asked for."""
    return PLAIN, signature(json.dumps(json.loads(raw).get("process", {})).encode())


def keep(container: Container, process: oci.Process, asked: Iterable[str], steps: Steps) -> None:
    """Store the plan of a process that has begun. Best effort: what isn't stored is thought up again next time."""
    try:
        content = _template(container, process, steps)
        for each in asked:
            _write(_place(container, each), _head(each) + content)
    except (OSError, ValueError, StopIteration):
        pass


def _write(place: Path, content: bytes) -> None:
    temporary = place.with_name(f"{place.name}-{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.rename(place)


def _head(asked: str) -> bytes:
    return text(_VERSION) + text(asked)


def _place(container: Container, asked: str) -> Path:
    """Find the place of a template that is of no use any more, or a free one. Raises StopIteration."""
    head = _head(asked)
    places = [container.directory / f"exec@{number}" for number in range(MOST)]
    same = (path for path in places if path.exists() and path.read_bytes().startswith(head))
    return next(same, None) or next(path for path in places if not path.exists())


def _template(container: Container, process: oci.Process, steps: Steps) -> bytes:
    arguments, environment = (f"{_TOKEN}-argument",), (f"{_TOKEN}-variable",)
    open_process = msgspec.structs.replace(process, args=arguments, env=environment, cwd=f"/{_TOKEN}-directory")
    plan = steps(open_process, _STRANGER, f"/{_TOKEN}-monitor")
    own = container.kept.spec.process or oci.Process(cwd="/")
    parts = [
        listed(_conditions(container)),
        record.stamped(str(BINARY)),
        listed(map(text, own.env)),
        text(own.cwd),
        listed(number(step.code) + listed(_parts(step)) for step in plan),
    ]
    return b"".join(parts)


def _conditions(container: Container) -> list[bytes]:
    """List what must be so: our rights and limits, and where processes may live."""
    found = record.rights()
    if unified := container.group.unified:  # cgroups(7), "no internal processes"
        path = Path(unified, "cgroup.subtree_control")
        if path.read_bytes().strip():
            raise ValueError("the container has handed controllers down")
        found.append(record.whole(str(path)))
    return found


def _parts(step: Operation) -> list[bytes]:
    found = []
    for name in step.__struct_fields__:
        value = getattr(step, name)
        if isinstance(step, Join) and name == "pid":
            found.append(number(_PID) + text(b""))
        elif isinstance(value, str | tuple) and value in _PARTED:
            found.append(number(_PARTED[value]) + text(b""))
        elif _TOKEN in repr(value) or value == _STRANGER:
            raise ValueError("what differs is where it can't be replaced")
        else:
            found.append(number(_LITERAL) + text(field(value)))
    return found
