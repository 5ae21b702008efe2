"""The contract of a peer, and what several of them do the same way."""

from __future__ import annotations

import select
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from bench.account import Account

if TYPE_CHECKING:
    from bench.peers.door import Door

Words = Sequence[str | Path]

PATIENCE = 120.0  # seconds for anything a peer does


class Run(NamedTuple):
    """One run of the marking program, in seconds: until its first instruction, and until all is over."""

    first: float
    whole: float


class PeerFailed(Exception):
    """The peer is there, but can't do what is asked of it here; one sentence says why."""


class Peer(Protocol):
    """Somebody who runs instances of the bench's image, without a network.

    `open` makes it ready (a daemon, an image loaded, a bundle) and raises `PeerFailed` when it can't. `slow`
    peers take part in every fifth round only. The memory of a `twin` isn't measured: another peer has the same
    engine, reached another way.
    """

    name: str
    slow: bool
    twin: bool

    def open(self, account: Account) -> None:
        """Get ready."""

    def version(self) -> str:
        """Tell which version this is."""

    def run(self) -> Run:
        """Run the marking program in a new instance, and remove that."""

    def idle(self, name: str) -> int:
        """Start an instance that waits, called `name`; returns a process of it, by the host's number."""

    def exec(self, name: str) -> None:
        """Run a program that ends at once in an idle instance, and learn its exit status."""

    def stop(self, name: str) -> None:
        """Ask an idle instance to end, and remove it."""

    def close(self) -> None:
        """Leave nothing running; never raises."""


@runtime_checkable
class Engine(Peer, Protocol):
    """A peer with an API, a network and a memory of what runs. What several threads may call is said to be `shared`."""

    def bridged(self, *, published: bool) -> Run:
        """Run it on the bridge, with a port published or not, in an instance that is removed by itself."""

    def begin(self, name: str, *, bridge: bool) -> None:
        """Start an idle instance as fast as can be; shared."""

    def application(self, folder: Path, *words: str, foreign: bool) -> None:
        """Do something with the application in a folder, by the engine's own command or by docker-compose."""

    def overview(self) -> int:
        """List all instances; returns how many there are."""

    def ping(self, times: int) -> None:
        """Make small requests on one connection, one after the other."""

    def door(self) -> Door:
        """Return its Docker API."""

    def end(self, name: str) -> None:
        """Remove an instance that runs, at once; shared."""

    def pids(self) -> set[int]:
        """Return the processes that are instances' own programs."""

    def daemon(self) -> int:
        """Return the daemon's pid."""


def command(words: Words) -> str:
    """Run a command to its end; returns what it printed. Raises `PeerFailed` with the last thing it said."""
    return _watch(words)[0]


def composed(host: str, folder: Path, *words: str) -> None:
    """Let docker-compose do something with the application in a folder."""
    address = ("env", f"DOCKER_HOST={host}", "COMPOSE_API_VERSION=1.40")
    command([*address, "docker-compose", "-p", "bench", "-f", folder / "docker-compose.yml", *words])


def timed(words: Words, *, by_arrival: bool = False) -> Run:
    """Run a command that runs the marking program.

    A machine has a clock of its own: there the output's arrival tells the first instruction, a little late.
    """
    began = time.monotonic()
    output, arrived = _watch(words)
    return Run((arrived if by_arrival else instant(output)) - began, time.monotonic() - began)


def _watch(words: Words) -> tuple[str, float]:
    """Run a command to its end; returns what it printed, and when the first of it came."""
    try:
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)
    except FileNotFoundError as error:
        raise PeerFailed(f"{words[0]} is not installed") from error
    with process:
        assert process.stdout
        select.select([process.stdout], [], [], PATIENCE)
        arrived = time.monotonic()
        try:
            output, said = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise PeerFailed(f"{words[0]} took longer than {PATIENCE:.0f} s") from error
    if process.returncode:
        lines = (said or output).strip().splitlines()
        raise PeerFailed(f"{Path(words[0]).name}: {lines[-1] if lines else f'status {process.returncode}'}")
    return output, arrived


def instant(output: str) -> float:
    """Read what the marking program printed, in seconds of CLOCK_MONOTONIC."""
    try:
        return int(output.split()[0]) / 1e9
    except (IndexError, ValueError):
        raise PeerFailed(f"the program's output was lost: {output!r}") from None


def spawn(words: Words, log: Path) -> subprocess.Popen[bytes]:
    """Start a daemon, in a network of its own, whose words go to a file. Raises `PeerFailed` when it isn't installed.

    So its bridge, rules and addresses are nobody else's, and can be counted.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if not shutil.which(words[0]):
        raise PeerFailed(f"{words[0]} is not installed")
    words = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *words]
    try:
        with log.open("wb") as file:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    except FileNotFoundError as error:
        raise PeerFailed(f"{words[0]} is not installed") from error


def end(process: subprocess.Popen[bytes] | None) -> None:
    """Ask a daemon to end, and wait for it; kill it when that takes too long."""
    if process is None:
        return
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_line(log: Path) -> str:
    """Return the last thing a daemon said."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
