"""User namespaces of instances: made before the start, kept as files, gone with the instance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from trivet.isolation.plan import Owner, Plan
from trivet.kernel.mount import drop
from trivet.launch.operation import Hold, Operation
from trivet.launch.spawn import run


def hold(owner: Owner, network: str = "", after: Sequence[Operation] = ()) -> None:
    """Make the user namespace, and with it a network namespace that is kept at path `network`; then do what is `after`.

    One left by an earlier attempt is replaced; an owner that is another instance's is there, and stays.
    """
    if owner.borrowed:
        if network:
            run([Hold(owner.path, network, "", ""), *after])
        return
    let_go(owner)
    path = Path(owner.path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        run([making(owner, network), *after])
    except BaseException:
        let_go(owner)
        raise


def making(owner: Owner, network: str = "") -> Hold:
    """Spell out how the namespace is made, where nothing is kept yet."""
    maps = f"0 {owner.first} {owner.size}\n"
    return Hold(owner.path, network, maps, maps)


def own(plan: Plan) -> Owner | None:
    """Give the owner whose user namespace the start makes: it isn't another's, nor made with a network's namespace."""
    made = any(attachment.kind == "netns" and attachment.path for attachment in plan.attachments)
    return None if plan.owner is None or plan.owner.borrowed or plan.owner.network or made else plan.owner


def beside(owner: Owner) -> str:
    """Tell where a network namespace is kept that was made with the owner's and is on no network."""
    return f"{os.path.dirname(owner.path)}/network"


def borrow(owner: Owner | None) -> Owner | None:
    """Give an instance's owner to another instance."""
    return msgspec.structs.replace(owner, borrowed=True) if owner else None


def let_go(owner: Owner) -> None:
    """Let the namespace go, and a network's that was made with it; missing is fine."""
    drop(owner.path)
    drop(beside(owner))


def inside(owner: Owner | None, user: str) -> str:
    """Name a user of the host as the instance knows it: its number inside, "root" for 0."""
    if owner is None or not user.isdigit() or not 0 <= int(user) - owner.first < owner.size:
        return user
    return str(int(user) - owner.first) if int(user) != owner.first else "root"
