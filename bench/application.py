"""An application of three services, each of which waits until the one before is healthy: how fast it is up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from bench.contestant import Contestant
from bench.harness import Act, Count, Tell, alternate
from bench.image import DIRECTORY, MARK, NAME
from bench.peers.peer import Engine

CHECK = 'healthcheck: {test: [CMD, /bin/busybox, "true"], interval: 500ms, retries: 20}'
COMPOSE = f"""
version: "3.7"
services:
  database:
    image: {NAME}
    command: [{MARK}, idle]
    {CHECK}
  cache:
    image: {NAME}
    command: [{MARK}, idle]
    {CHECK}
    depends_on: {{database: {{condition: service_healthy}}}}
  web:
    image: {NAME}
    command: [{MARK}, idle]
    depends_on: {{cache: {{condition: service_healthy}}}}
"""


def measure(contestants: Sequence[Contestant], rounds: int, tell: Tell) -> None:
    """Measure until the last service runs: by everybody's own command, and by docker-compose."""
    engines = [one for one in contestants if isinstance(one.peer, Engine)]
    folder = DIRECTORY / "application"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "docker-compose.yml").write_text(COMPOSE)
    alternate(engines, ("application",), rounds, _act(folder, foreign=False), tell, Count.TURN)
    alternate(engines, ("foreign application",), rounds, _act(folder, foreign=True), tell, Count.TURN)


def _act(folder: Path, *, foreign: bool) -> Act:
    def act(one: Contestant) -> Sequence[float]:
        if not isinstance(one.peer, Engine):
            return ()
        began = monotonic()
        one.peer.application(folder, "up", "-d", foreign=foreign)
        needed = monotonic() - began
        one.peer.application(folder, "down", "-t", "0", foreign=foreign)
        return (needed,)

    return act
