"""People's own tools, pointed at trivet, and at a real dockerd beside it where one can run: the same expectations."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree, which

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon

from trivet.kernel.namespace import inside

IMAGE = "busybox:docker"


@dataclass(frozen=True)
class Tool:
    """The `docker` command, for one engine; `pid` is that of an engine with a network of its own."""

    address: str
    name: str
    home: Path
    pid: int = 0

    @property
    def socket(self) -> str:
        """The engine's socket."""
        return self.address.removeprefix("unix://")

    def command(self, *arguments: str | Path) -> list[str | Path]:
        """The whole command line."""
        return ["docker", "--host", self.address, *arguments]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be, with this thread and what it starts, where the engine publishes ports."""
        with ExitStack() as undo:
            if self.pid:
                undo.enter_context(inside(undo.enter_context(Path(f"/proc/{self.pid}/ns/net").open("rb")).fileno()))
            yield

    @property
    def env(self) -> dict[str, str]:
        """Docker's own builder, and nobody's configuration."""
        return {**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": str(self.home)}

    def run(
        self, *arguments: str | Path, input: bytes | None = None, timeout: float = 30
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the command."""
        return subprocess.run(
            self.command(*arguments), input=input, capture_output=True, timeout=timeout, env=self.env, check=False
        )

    def ok(self, *arguments: str | Path, input: bytes | None = None, timeout: float = 30) -> str:
        """Run the command, which must succeed; its output, stripped."""
        done = self.run(*arguments, input=input, timeout=timeout)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout.decode()}\n{done.stderr.decode()}"
        return done.stdout.decode(errors="replace").strip()

    def fails(self, *arguments: str | Path) -> str:
        """Run the command, which must fail; what it complains about."""
        done = self.run(*arguments)
        assert done.returncode, f"{arguments} succeeded: {done.stdout.decode()}"
        return done.stderr.decode()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration directory for the clients."""
    return tmp_path_factory.mktemp("docker-config")


@pytest.fixture(scope="session")
def trivet(daemon: Daemon, home: Path) -> Tool:
    """The command, pointed at trivet, which has an image."""
    tool = Tool(address=f"unix://{daemon.run}/docker.sock", name="trivet", home=home)
    tool.ok("import", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
    return tool


@pytest.fixture(scope="session")
def dockerd(home: Path) -> Iterator[Tool]:
    """The command, pointed at a dockerd of the tests' own, in a network of its own: it writes the host's rules."""
    if not which("dockerd"):
        pytest.skip("no program dockerd")
    with ExitStack() as undo:
        directory = Path(tempfile.mkdtemp(prefix="tvd", dir="/tmp"))
        undo.callback(rmtree, directory, True)
        address = f"unix://{directory}/sock"
        places = [f"--data-root={directory}/data", f"--exec-root={directory}/exec", f"--pidfile={directory}/pid"]
        log = undo.enter_context((directory / "log").open("wb"))
        line = ["unshare", "--net", "--mount", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
        process = subprocess.Popen([*line, "dockerd", f"--host={address}", *places], stdout=log, stderr=log)
        tool = Tool(address=address, name="dockerd", home=home, pid=process.pid)
        undo.callback(process.wait, 30)
        undo.callback(process.terminate)
        deadline = time.monotonic() + 30
        while tool.run("version").returncode:
            if time.monotonic() > deadline or process.poll() is not None:
                pytest.skip("dockerd does not start here")
            time.sleep(0.2)
        tool.ok("import", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
        undo.callback(lambda: tool.run("rm", "-f", *tool.ok("ps", "-aq").split()))
        yield tool


@pytest.fixture(params=["trivet", "dockerd"])
def docker(request: pytest.FixtureRequest) -> Tool:
    """Both engines, one after the other."""
    tool: Tool = request.getfixturevalue(request.param)
    return tool
