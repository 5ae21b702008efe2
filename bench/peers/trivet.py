"""trivet: an engine of its own for every level and way, so that time and memory can be told apart."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

from bench import earlier
from bench.account import Account
from bench.image import DIRECTORY, MARK, NAME, archive
from bench.peers.peer import PeerFailed, Run, command, end, instant, last_line, spawn, timed
from trivet.base.error import TrivetError
from trivet.client.client import Client
from trivet.client.schema import ExecRequest, InstanceRequest, LevelName
from trivet.client.schema_host import LevelInfo
from trivet.client.schema_network import EndpointRequest
from trivet.client.stream import Exit, Output, Stream

BIN = Path(sys.executable).parent
RUN = "/run/trivet-bench"  # short: the path of a unix socket has at most 107 bytes
READY = 30.0


class Trivet(ABC):
    """What both ways have in common: the engine, and idle instances."""

    twin = False

    def __init__(self, name: str, level: LevelName, *, users: bool = True) -> None:
        self.name = name
        self.users: Literal["", "host"] = "" if users else "host"
        self.level: LevelName = level
        self.slow = level == "vm"
        self._short = name.replace(" ", "-").replace("(", "").replace(")", "").replace(",", "")
        self._run = Path(f"{RUN}-{level}-{self._short.rpartition('-')[2][0]}{self.users[:1]}")
        self._host = f"unix://{self._run}/trivet.sock"
        self._network = "" if level == "process" else "none"
        self._engine: subprocess.Popen[bytes] | None = None
        self._trivetd: list[str | Path] = [BIN / "trivetd", "--root", DIRECTORY / self._short, "--run-dir", self._run]
        self._client = Client(self._host)

    def open(self, account: Account) -> None:
        """Start the engine, load the image, try it."""
        log = DIRECTORY / f"{self._short}.log"
        earlier.end(self._client)
        self._engine = spawn([*self._trivetd, "--log-level", "warning"], log)
        self._wait(log)
        try:
            if not self._here().available:
                raise PeerFailed(f"level {self.level} lacks {', '.join(self._here().missing)}")
            list(self._client.images.load(archive().read_bytes()))
            account.also(self.idle("bench-try"))
            self.stop("bench-try")
        except TrivetError as error:
            raise PeerFailed(f"trivet: {error}") from error

    def version(self) -> str:
        """Tell which version this is, and for a machine what its processor is."""
        version = f"trivet {self._client.system.ping()}"
        return f"{version}, QEMU: {self._here().acceleration}" if self.level == "vm" else version

    @abstractmethod
    def run(self) -> Run:
        """Run the program in a new instance."""

    @abstractmethod
    def stop(self, name: str) -> None:
        """Stop and remove."""

    def idle(self, name: str) -> int:
        """Start an instance in the background."""
        created = self._client.instances.create(self._request(name, MARK, "idle"))
        self._client.instances.start(created.id)
        return self._client.instances.get(created.id).pid

    def close(self) -> None:
        """Remove instances, end the engine, take its control groups off the host."""
        with contextlib.suppress(TrivetError):
            for instance in self._client.instances.list(all=True):
                self._client.instances.remove(instance.id, force=True)
        end(self._engine)
        subprocess.run([*self._trivetd, "--uninstall"], stdin=subprocess.DEVNULL, capture_output=True)
        shutil.rmtree(self._run, ignore_errors=True)

    def _here(self) -> LevelInfo:
        return next(level for level in self._client.system.info().levels if level.level == self.level)

    def _request(self, name: str, *words: str) -> InstanceRequest:
        networks = [EndpointRequest(network=self._network)] if self._network else []
        return InstanceRequest(
            image=NAME,
            isolation=self.level,
            name=name,
            command=list(words),
            networks=networks,
            memory=128 << 20,
            userns=self.users,
        )

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline and self._engine and self._engine.poll() is None:
            try:
                self._client.system.ping()
                return
            except TrivetError:
                time.sleep(0.05)
        end(self._engine)
        raise PeerFailed(f"trivetd did not start: {last_line(log)}")


class TrivetApi(Trivet):
    """The engine's own API, by the typed client."""

    def __init__(self, level: LevelName, *, users: bool = True) -> None:
        super().__init__(f"trivet {level}{'' if users else ' host users'} (api)", level, users=users)

    def run(self) -> Run:
        """Create, start and stay with it, remove."""
        began = time.monotonic()
        created, stream = self._client.instances.run(self._request("", MARK))
        with stream:
            output, arrived = read(stream)
        self._client.instances.remove(created.id)
        # A machine has a clock of its own: there the arrival of the output tells, which comes a little later.
        first = arrived if self.level == "vm" else instant(output)
        return Run(first - began, time.monotonic() - began)

    def exec(self, name: str) -> None:
        """Run a further program inside, stay with it."""
        with self._client.instances.exec(name, ExecRequest(command=[MARK, "true"])) as stream:
            read(stream)

    def stop(self, name: str) -> None:
        """Stop and remove."""
        self._client.instances.stop(name)
        self._client.instances.remove(name)


class TrivetCommand(Trivet):
    """The `trivet` command, as people type it."""

    twin = True

    def __init__(self, level: LevelName) -> None:
        super().__init__(f"trivet {level} (command)", level)
        self._trivet: list[str | Path] = [BIN / "trivet", "--host", self._host]

    def run(self) -> Run:
        """`trivet run --rm`."""
        options = ("--rm", "--isolation", self.level, "--network", self._network, "--memory", "128m")
        return timed([*self._trivet, "run", *options, NAME], by_arrival=self.level == "vm")

    def exec(self, name: str) -> None:
        """`trivet exec`."""
        command([*self._trivet, "exec", name, MARK, "true"])

    def stop(self, name: str) -> None:
        """`trivet stop` and `trivet rm`."""
        command([*self._trivet, "stop", name])
        command([*self._trivet, "rm", name])


def read(stream: Stream) -> tuple[str, float]:
    """Read to the end; returns the output and when its first byte arrived. Raises `PeerFailed` for a failed program."""
    output, arrived = b"", 0.0
    for event in stream:
        if isinstance(event, Output):
            arrived = arrived or time.monotonic()
            output += event.data
        elif isinstance(event, Exit) and event.code:
            raise PeerFailed(f"the program ended with status {event.code}: {output.decode(errors='replace')}")
    return output.decode(), arrived
