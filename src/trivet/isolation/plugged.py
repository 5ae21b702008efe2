"""Interfaces of a machine made from an image that come and go while it runs, and what its guest is told of them."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from trivet.base.error import Conflict, TrivetError
from trivet.hypervisor.device.nic import PREFIX
from trivet.hypervisor.qmp import Qmp
from trivet.hypervisor.template import PORTS
from trivet.isolation import change, guest, machine, resize, slot
from trivet.isolation.plan import Attachment, Plan, Program
from trivet.isolation.saving import CannotSave
from trivet.launch.operation import Operation, Root

_PATIENCE, _STEP = 20.0, 0.1


class Hands(Protocol):
    """What this asks of a running machine: that its agent does something, and says what came of it."""

    def inside(self, steps: list[Operation]) -> bytes:
        """Have the agent do it. Raises a `TrivetError` when it can't."""


def plug(plan: Plan, use: Attachment, hands: Hands) -> None:
    """Plug an interface in and have it set up; it goes again when the guest can't. Raises `NoSocket`."""
    _check(plan)
    with Qmp(_socket(plan), slot.PATIENCE) as qmp:
        slot.plug(qmp, use, plan.name, machine.sockets(shared=bool(guest.shared(plan))))
    try:
        _found(use, hands)
    except BaseException:
        unplug(plan, use, hands)
        raise


def unplug(plan: Plan, use: Attachment, hands: Hands) -> None:
    """Take one away that the guest lets go; nothing where it isn't there any more. Raises `Conflict`.

    A slot that was looked behind before it asked for it has no power in the guest's eyes, and QEMU takes what is in it
    at once: so the guest is asked before.
    """
    _check(plan)
    cards = machine.sockets(shared=bool(guest.shared(plan)))
    with Qmp(_socket(plan)) as qmp:
        places = dict(each.split("=") for each in slot.layout(qmp))
    if any(places.get(f"{PREFIX}{card}") == use.mac.lower() for card in cards):
        hands.inside(guest.lost(use))
    with Qmp(_socket(plan), slot.PATIENCE) as qmp:
        slot.unplug(qmp, use.mac, use.network, plan.name)


def rewrite(plan: Plan, was: Mapping[str, bytes], hands: Hands) -> None:
    """Write into the guest's root what has changed of the plan's files since the guest was given what `was`."""
    steps: list[Operation] = []
    for file in plan.files:
        before = was.get(file.target)
        if before not in (None, file.content) and _content(plan, file.target, hands) == before:
            steps += change.file(plan, file.target, file.content, file.mode)
    if steps:
        entered = [change.free(step) for step in guest.enter(plan, Program(argv=("/",), builtin="nothing"))]
        inside = entered.index(Root("/")) + 1
        hands.inside([*entered[:inside], *steps, *entered[inside:]])


def check_saving(plan: Plan) -> None:
    """Refuse a machine whose interfaces aren't in the first slots: a copy's are. Raises `CannotSave`."""
    cards = machine.sockets(shared=bool(guest.shared(plan)))
    wanted = [f"{PREFIX}{card}={use.mac}".lower() for card, use in zip(cards, change.taps(plan), strict=False)]
    with Qmp(_socket(plan)) as qmp:
        found = [each for each in slot.layout(qmp) if each.partition("=")[0].removeprefix(PREFIX) in cards]
    if found != wanted or resize.noted(plan).slots != PORTS.count:
        cause = "it was started by another trivet, or a network in the middle was taken from it since"
        raise CannotSave(plan, cause, f"trivet restart {plan.name}")


def _found(use: Attachment, hands: Hands) -> None:
    """Have the guest look for it until it sees it: a slot gets its power a moment after it gets a device."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            hands.inside(guest.found(use))
            return
        except TrivetError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_STEP)


def _content(plan: Plan, target: str, hands: Hands) -> bytes:
    """Read a file of the guest's; what isn't one has nothing that could be kept."""
    import tarfile

    said = hands.inside(guest.enter(plan, Program(argv=(target,), builtin="archive-read")))
    with tarfile.open(fileobj=io.BytesIO(said)) as archive:
        for member in archive:
            if file := archive.extractfile(member):
                return file.read()
    return b""


def _check(plan: Plan) -> None:
    """Refuse a machine that has not the slots: it was booted, or an older trivet has started it. Raises `Conflict`."""
    if resize.noted(plan).slots != PORTS.count:
        problem = f"interfaces of instance {plan.name} cannot come and go: it was started without slots for them"
        raise Conflict(problem, hint=f"trivet restart {plan.name}")


def _socket(plan: Plan) -> Path:
    return Path(plan.directory, machine.QMP)
