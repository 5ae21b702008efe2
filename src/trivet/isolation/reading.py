"""Reading the files of a machine that doesn't run: by its own kernel, in a machine made for that.

What a guest has written may be meant for whoever mounts it; on the host nobody does.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from trivet.base.error import Internal
from trivet.isolation.plan import Log, Plan, Program
from trivet.launch.channel import Channel
from trivet.launch.frame import Type

_PATIENCE = 60.0  # without a word


def alone(plan: Plan) -> Plan:
    """Leave a machine its drives, in a place of its own."""
    return msgspec.structs.replace(
        plan,
        directory=f"{plan.directory}.read",
        cgroup=f"{plan.cgroup}.read",
        program=Program(argv=("/",)),
        log=Log(path=""),
        mounts=(),
        files=(),
        attachments=(),
    )


def pass_on(plan: Plan, channel: Channel, write: Callable[[bytes], object]) -> None:
    """Let a reader go, and pass on what it writes. Raises `Internal` with its own words."""
    said = b""
    channel.attach(stdin=False)
    channel.go()
    while (frame := channel.receive(_PATIENCE)) is not None:
        if frame.type is Type.STDOUT:
            write(frame.payload)
        elif frame.type is Type.STDERR:
            said += frame.payload
        elif frame.type in (Type.EXIT, Type.FAILED):
            break
    if frame is None or frame.type is not Type.EXIT or any(frame.payload[:4]):
        words = said.decode(errors="replace").strip() or "its machine ended"
        raise Internal(f"cannot read the files of instance {plan.name}: {words}")
