"""What an attack is: what is tried inside, what shows that it worked, and the weakening with which it does.

Words of options are those of `docker run`, which `trivet run` and `podman run` understand, too. In all words,
`{...}` names a thing of the canary's: see `canary.Canary.words`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class Proof(StrEnum):
    """What shows that an attack has worked."""

    SECRET = "secret"  # the program printed what only the host knows
    CHANGED = "changed"  # the canary's directory is not what it was
    KILLED = "killed"  # the canary's process is gone
    SAID = "said"  # the program got what it tried: only it can know
    TYPED = "typed"  # the canary's terminal heard something


class Entry(msgspec.Struct, frozen=True):
    """A file of the image: with `link` a symbolic link, with `program` the gym's own, else `content`."""

    path: str
    link: str = ""
    content: str = ""
    mode: int = 0o644
    program: bool = False
    fifo: bool = False


class Weakening(msgspec.Struct, frozen=True, kw_only=True):
    """What opens the door: options of `trivet run`, or changes to a config.json for `trivet-runtime` with `flags`.

    `before` is options that stand in front of the attack's own. `argv` is what is tried then, where the way through the
    open door is another one.
    """

    options: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    config: dict[str, Any] | None = None
    flags: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()


class Attack(msgspec.Struct, frozen=True, kw_only=True):
    """One way out that was open once somewhere: `row` of the table of known attacks, and who suffered from it.

    `argv` is what is run inside: a verb of the gym's program, or with a slash in front a program of the image.
    `options` belong to the attack: a peer that can't have them isn't asked. With `exec`, `argv` is run by exec,
    beside a program that waits. A race runs `beside` in another container, with the first two of its options, and
    tries up to `times` times meanwhile.
    """

    name: str
    row: int
    reference: str
    tries: str
    argv: tuple[str, ...]
    proof: Proof
    weak: Weakening
    options: tuple[str, ...] = ()
    layer: tuple[Entry, ...] = ()
    exec: bool = False
    beside: tuple[str, ...] = ()
    times: int = 1
    perhaps: bool = False  # not every kernel has what this is after
    execs: int = 0  # how often `/proc/self/exe` is run beside it meanwhile


class Outcome(msgspec.Struct, frozen=True):
    """How it ended: what the program said and its exit code, or why it was refused."""

    output: str = ""
    code: int = -1
    refused: str = ""
