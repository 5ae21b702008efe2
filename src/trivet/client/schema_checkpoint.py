"""Wire shapes of instances' snapshots and clones."""

from __future__ import annotations

import msgspec


class CheckpointRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`snapshot` and `checkpoint`: by default the next free number is the name; with `end` the instance ends there."""

    name: str = ""
    end: bool = False


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance was at one moment. `parent` is the snapshot it was taken from, or gone back to, before that.

    `memory`: its program was running, and goes on from there. `pause` is how long it stood still (s), `size` what the
    snapshot takes on disk (bytes). `current` is the one that the instance goes on from.
    """

    instance: str
    name: str
    created: str
    parent: str = ""
    memory: bool = False
    pause: float = 0.0
    size: int = 0
    current: bool = False


class Relevelled(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of level was: `gap` is how long the program didn't run (s), 0 if it hadn't run before."""

    level: str
    gap: float = 0.0


class RevertRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`snapshot revert` and `restore`: "" is the newest. `restore` leaves an instance alone that runs."""

    name: str = ""
    idle: bool = False


class CloneRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`clone`: `{}` in `name` is the number of the clone, by default NAME-1, NAME-2, ... as they are free.

    With `publish` ports are published on free host ports, otherwise not at all. With `memory` a machine with a system
    of its own goes on where the original is; without it its copies boot.
    """

    count: int = 1
    name: str = ""
    publish: bool = False
    memory: bool = False


class Cloned(msgspec.Struct, frozen=True, kw_only=True):
    """The clones' ids and names; `pause` is how long the original stood still (s)."""

    ids: list[str]
    names: list[str]
    pause: float = 0.0
