"""Docker: a dockerd of the bench's own, reached by its API and by its command."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from bench.account import Account
from bench.image import DIRECTORY, MARK, NAME, archive
from bench.peers.door import Door
from bench.peers.peer import PeerFailed, Run, command, composed, end, instant, last_line, spawn, timed

RUN = Path("/run/trivet-bench-docker")  # short: the path of a unix socket has at most 107 bytes
READY = 30.0


class Docker(ABC):
    """What both ways have in common: the daemon."""

    slow = False
    twin = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._short = name.replace(" ", "-").replace("(", "").replace(")", "")
        self._run = Path(f"{RUN}-{self._short}")
        self._host = f"unix://{self._run}/docker.sock"
        self._daemon: subprocess.Popen[bytes] | None = None

    def open(self, account: Account) -> None:
        """Start the daemon, load the image, try it."""
        self._run.mkdir(mode=0o700, parents=True, exist_ok=True)
        data, log = DIRECTORY / self._short, DIRECTORY / f"{self._short}.log"
        self._daemon = spawn(
            [
                *("dockerd", "--host", self._host, "--data-root", data, "--exec-root", self._run / "exec"),
                *("--pidfile", self._run / "pid", "--cgroup-parent", account.path),
            ],
            log,
        )
        self._wait(log)
        self._command("load", "--quiet", "--input", archive())
        self.run()

    def version(self) -> str:
        """Tell which version this is."""
        return self._command("version", "--format", "docker {{.Server.Version}}").strip()

    @abstractmethod
    def run(self) -> Run:
        """Run the program in a new container."""

    def idle(self, name: str) -> int:
        """Start a container in the background."""
        self._command("run", "--detach", "--network", "none", "--name", name, NAME, MARK, "idle")
        return int(self._command("inspect", "--format", "{{.State.Pid}}", name))

    def close(self) -> None:
        """Remove containers, end the daemon."""
        with contextlib.suppress(PeerFailed):
            names = self._command("ps", "--all", "--quiet").split()
            if names:
                self._command("rm", "--force", *names)
        end(self._daemon)
        shutil.rmtree(self._run, ignore_errors=True)

    def _command(self, *words: str | Path) -> str:
        return command(["docker", "--host", self._host, *words])

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline and self._daemon and self._daemon.poll() is None:
            try:
                self._command("version")
                return
            except PeerFailed:
                time.sleep(0.2)
        end(self._daemon)
        raise PeerFailed(f"dockerd did not start: {last_line(log)}")


class DockerCommand(Docker):
    """The `docker` command, as people type it."""

    twin = True

    def __init__(self) -> None:
        super().__init__("docker (command)")

    def run(self) -> Run:
        """`docker run --rm`."""
        return timed(["docker", "--host", self._host, "run", "--rm", "--network", "none", NAME])

    def exec(self, name: str) -> None:
        """`docker exec`."""
        self._command("exec", name, MARK, "true")

    def stop(self, name: str) -> None:
        """`docker stop` and `docker rm`."""
        self._command("stop", name)
        self._command("rm", name)


class DockerApi(Docker):
    """The Engine API on its unix socket, with the requests docker-py and `docker run` make."""

    def __init__(self) -> None:
        super().__init__("docker (api)")
        self._door = Door(self._run / "docker.sock")

    def run(self) -> Run:
        """Create, start, wait, read the output, delete."""
        began = time.monotonic()
        body = {"Image": NAME, "HostConfig": {"NetworkMode": "none"}}
        key = json.loads(self._door.ask("POST", "/containers/create", body))["Id"]
        self._door.ask("POST", f"/containers/{key}/start")
        self._door.ask("POST", f"/containers/{key}/wait")
        output = self._door.ask("GET", f"/containers/{key}/logs?stdout=1")[8:]  # behind the stream's header
        self._door.ask("DELETE", f"/containers/{key}")
        return Run(instant(output.decode()) - began, time.monotonic() - began)

    def exec(self, name: str) -> None:
        """Create an exec, start it, read to its end, ask for the exit status."""
        body = {"Cmd": [MARK, "true"], "AttachStdout": True, "AttachStderr": True}
        key = json.loads(self._door.ask("POST", f"/containers/{name}/exec", body))["Id"]
        self._door.ask("POST", f"/exec/{key}/start", {"Detach": False})
        if json.loads(self._door.ask("GET", f"/exec/{key}/json"))["ExitCode"]:
            raise PeerFailed("docker: the program failed")

    def stop(self, name: str) -> None:
        """Stop and delete."""
        self._door.ask("POST", f"/containers/{name}/stop")
        self._door.ask("DELETE", f"/containers/{name}")

    def application(self, folder: Path, *words: str, foreign: bool) -> None:
        """`docker-compose` is its own."""
        composed(self._host, folder, *words)

    def bridged(self, *, published: bool) -> Run:
        """Create, attach, wait for the removal, start, as `docker run --rm` does; read the output and the status."""
        began = time.monotonic()
        host: dict[str, Any] = {"AutoRemove": True}
        body = {"Image": NAME, "AttachStdout": True, "AttachStderr": True, "HostConfig": host}
        if published:
            body["ExposedPorts"] = {"80/tcp": {}}
            host["PortBindings"] = {"80/tcp": [{"HostPort": ""}]}
        key = json.loads(self._door.ask("POST", "/containers/create", body))["Id"]
        with self._door.sent("POST", f"/containers/{key}/attach?stream=1&stdout=1&stderr=1") as attached:
            output = attached.getresponse()
            with self._door.sent("POST", f"/containers/{key}/wait?condition=removed") as waiting:
                gone = waiting.getresponse()
                self._door.ask("POST", f"/containers/{key}/start")
                text = output.read()[8:]  # behind the stream's header
                gone.read()
        return Run(instant(text.decode()) - began, time.monotonic() - began)

    def begin(self, name: str, *, bridge: bool) -> None:
        """Create and start."""
        self._door.begin(name, bridge=bridge)

    def overview(self) -> int:
        """List."""
        return self._door.overview()

    def ping(self, times: int) -> None:
        """Ask whether it is there."""
        for _ in range(times):
            self._door.ask("GET", "/_ping")

    def door(self) -> Door:
        """It has no other."""
        return self._door

    def end(self, name: str) -> None:
        """Remove by force."""
        self._door.ask("DELETE", f"/containers/{name}?force=1")

    def pids(self) -> set[int]:
        """Ask for the processes, one container after the other."""
        found = json.loads(self._door.ask("GET", "/containers/json"))
        return {json.loads(self._door.ask("GET", f"/containers/{one['Id']}/json"))["State"]["Pid"] for one in found}

    def daemon(self) -> int:
        """Return the daemon's pid."""
        return self._daemon.pid if self._daemon else 0
