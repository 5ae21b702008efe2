"""The status word of an instance, and which action each word allows.

             start                    exit
created ─────────────▶ running ─────────────▶ exited ──┐
   │                    │   ▲                  │  ▲    │ restart policy
   │              pause │   │ resume     start │  └────┴─▶ restarting ─▶ running
   │                    ▼   │                  ▼
   └── remove           paused               running        remove ─▶ (gone)
"""

from __future__ import annotations

from enum import StrEnum

from trivet.base.error import Conflict


class Word(StrEnum):
    """What an instance is doing."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"


ALLOWED: dict[str, frozenset[Word]] = {
    "start": frozenset({Word.CREATED, Word.EXITED, Word.RESTARTING}),
    "pause": frozenset({Word.RUNNING}),
    "resume": frozenset({Word.PAUSED}),
    "signal": frozenset({Word.RUNNING, Word.PAUSED}),
    "exec in": frozenset({Word.RUNNING}),
    "attach to": frozenset({Word.RUNNING, Word.PAUSED}),
    "measure": frozenset({Word.RUNNING, Word.PAUSED}),
    "take a snapshot of": frozenset({Word.CREATED, Word.RUNNING, Word.EXITED}),
    "checkpoint": frozenset({Word.RUNNING}),
    "revert": frozenset({Word.CREATED, Word.RUNNING, Word.PAUSED, Word.EXITED}),
    "restore": frozenset({Word.CREATED, Word.EXITED}),
    "change the level of": frozenset({Word.CREATED, Word.RUNNING, Word.EXITED}),
    "clone": frozenset({Word.CREATED, Word.RUNNING, Word.EXITED}),
    "remove": frozenset({Word.CREATED, Word.EXITED}),
}

HINTS = {
    ("remove", Word.RUNNING): "stop it first, or use rm -f",
    ("remove", Word.RESTARTING): "stop it first, or use rm -f",
    ("take a snapshot of", Word.PAUSED): "trivet unpause {name}",
    ("change the level of", Word.PAUSED): "trivet unpause {name}",
    ("clone", Word.PAUSED): "trivet unpause {name}",
    ("checkpoint", Word.EXITED): "trivet snapshot {name} keeps what it has written",
    ("restore", Word.RUNNING): "trivet snapshot revert {name}",
    ("exec in", Word.PAUSED): "trivet unpause {name}",
    ("exec in", Word.CREATED): "trivet start {name}",
    ("exec in", Word.EXITED): "trivet start {name}",
}


class WrongStatus(Conflict):
    """The instance is not in a status that allows the action."""

    def __init__(self, name: str, word: Word, action: str) -> None:
        self.name, self.word, self.action = name, word, action
        self.id = ""  # whoever knows it may say it
        hint = HINTS.get((action, word))
        super().__init__(f"cannot {action} instance {name}: it is {word}", hint=hint and hint.format(name=name))


def check(action: str, name: str, word: Word) -> None:
    """Raise `WrongStatus` unless an instance that is `word` allows `action`."""
    if word not in ALLOWED[action]:
        raise WrongStatus(name, word, action)
