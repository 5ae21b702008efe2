"""One attack, from canary to verdict."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import msgspec
from tests.gym import invariant
from tests.gym.attack import Attack, Outcome
from tests.gym.canary import Canary
from tests.gym.host import Host
from tests.gym.subject.contract import Subject
from tests.runtime import until


class Verdict(msgspec.Struct, frozen=True):
    """Whether it got out, what it said, and what of the host is not as before."""

    escaped: bool
    outcome: Outcome
    damage: list[str]


class Ring:
    """A host, and on it trivet's engine and runtime."""

    def __init__(self, host: Host, directory: Path, engine: Subject, runtime: Subject) -> None:
        self.host = host
        self.directory = directory
        self.engine = engine
        self._runtime = runtime
        # The engine has run something already, whose interface is taken away when the kernel finds the time.
        until(lambda: not any(name.startswith("tv") for name in self._picture().interfaces), 60)
        self._before = self._picture()

    def weakened(self, attack: Attack) -> Verdict:
        """Try it with the door open; what it breaks is told with the next real one, if it stays broken."""
        return self._try(self.engine if attack.weak.config is None else self._runtime, attack, weak=True)

    def real(self, attack: Attack) -> Verdict:
        """Try it as everybody gets it, by the engine."""
        return self._try(self.engine, attack)

    def answers(self) -> bool:
        """Tell whether the engine answers."""
        return self.engine.alive()

    def _try(self, subject: Subject, attack: Attack, *, weak: bool = False) -> Verdict:
        with self.canary() as canary:
            words, weakening = canary.words(), attack.weak if weak else None
            with subject.beside(attack, words) if attack.beside else nullcontext():
                for _ in range(attack.times):
                    outcome = subject.run(attack, words, weakening)
                    if escaped := canary.proven(attack.proof, outcome.output, outcome.code):
                        break
            damage = ["the canary's directory has changed"] if canary.changed() else []
        if not subject.alive():
            damage.append(f"{subject.name} does not answer any more")
        return Verdict(escaped, outcome, damage if weak else damage + self._damage())

    def _picture(self) -> invariant.Picture:
        return invariant.take(self.host, (*self.engine.programs(), *self._runtime.programs()))

    def _damage(self, seconds: float = 40) -> list[str]:
        """Tell what is not as before; the kernel takes interfaces and processes away when it finds the time."""
        deadline = time.monotonic() + seconds
        while damage := invariant.differences(self._before, now := self._picture()):
            if time.monotonic() > deadline:
                self._before = now  # the next attack is not to blame
                break
            time.sleep(0.05)
        return damage

    @contextmanager
    def canary(self) -> Iterator[Canary]:
        """Make a canary."""
        directory = self.directory / f"canary-{secrets.token_hex(4)}"
        canary = Canary(self.host, directory)
        try:
            yield canary
        finally:
            canary.close()
            with suppress(OSError):
                shutil.rmtree(directory)
