"""The contract of whoever is attacked."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from tests.gym.attack import Attack, Outcome, Weakening
from tests.gym.host import Host


class NotApplicable(Exception):
    """The attack needs something this one doesn't have; one sentence says what."""


class Subject(Protocol):
    """Somebody who runs images with configurations of their own, on the gym's host.

    `open` makes it ready. Only trivet's own are ever weakened: peers are tried as they come.
    """

    name: str

    def open(self, host: Host, directory: Path) -> None:
        """Get ready."""

    def version(self) -> str:
        """Tell which version this is."""

    def run(self, attack: Attack, words: dict[str, str], weak: Weakening | None = None) -> Outcome:
        """Try an attack, leave nothing running. Raises `NotApplicable`."""

    def beside(self, attack: Attack, words: dict[str, str]) -> AbstractContextManager[object]:
        """Keep what runs beside a race running."""

    def programs(self) -> tuple[Path, ...]:
        """Name the files of its own that nobody may overwrite."""

    def alive(self) -> bool:
        """Tell whether it answers."""

    def close(self) -> None:
        """Leave nothing running; never raises."""


def argv(attack: Attack, words: dict[str, str], instead: tuple[str, ...] = ()) -> list[str]:
    """Spell what is run inside."""
    return inside(instead or attack.argv, words)


def inside(command: tuple[str, ...], words: dict[str, str]) -> list[str]:
    """Spell a verb of the gym's program, or a program of the image."""
    spelt = [word.format(**words) for word in command]
    return spelt if spelt[0].startswith("/") else ["/gym", *spelt]


def hide_unified(host: Host) -> None:
    """Take the version 2 hierarchy beside version 1 out of sight: crun refuses to work with both."""
    host.run("umount", "/sys/fs/cgroup/unified")
