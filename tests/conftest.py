"""Fixtures everything shares: probed needs, short run directories, a real engine."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import settings

from trivet.base.error import NotFound
from trivet.client.client import Client

BIN = Path(sys.executable).parent
CGROUP = Path("/sys/fs/cgroup")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job, whose children would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("trivet", deadline=None)  # on a busy machine time says nothing
settings.load_profile("trivet")

PROBES: dict[str, Callable[[], str]] = {
    "root": lambda: "" if os.geteuid() == 0 else "not root",
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what `needs` a thing that isn't there: a probe's name, or a program's."""
    for mark in item.iter_markers("needs"):
        for what in mark.args:
            lack = PROBES[what]() if what in PROBES else "" if shutil.which(what) else f"no program {what}"
            if lack:
                pytest.skip(lack)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let no test leave another umask to those that come after it in its process."""
    before = _umask()
    try:
        return (yield)
    finally:
        if (after := _umask()) != before:
            os.umask(before)
            pytest.fail(f"the umask was {before:04o} and is {after:04o}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, object, object]:
    """Let no garbage be collected while a failure is laid out.

    A coroutine that is thrown away tells so with a traceback, which parses its lines; Python 3.11 parses one text at a
    time, and the run would end with "AST constructor recursion depth mismatch" (python/cpython#106905).
    """
    if call.excinfo is None:
        return (yield)
    gc.collect()
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def _umask() -> int:
    return int(Path("/proc/self/status").read_text().split("Umask:", 1)[1].split()[0], 8)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name cases of bytes by their length: content may hold the time it was made, and all workers must agree."""
    return f"{argname}-{len(val)}-bytes" if isinstance(val, bytes) else None


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory with a name so short that unix sockets fit below it (107 bytes, unix(7))."""
    directory = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


class Daemon:
    """A real `trivetd` of a test's own, and the command that talks to it."""

    def __init__(self, root: Path, run: Path, *options: str) -> None:
        self.options = options
        self.root = root
        self.run = run
        self.socket = run / "trivet.sock"
        self.address = f"unix://{self.socket}"
        self.log = run / "trivetd.log"
        self.quiet: tuple[str, ...] = ("--spares=0",)  # machines that wait would be somebody's leftovers
        self.prefix: tuple[str, ...] = ()  # what the engine's command line begins with, to run somewhere else
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The engine's process, while it runs."""
        assert self._process
        return self._process.pid

    @property
    def client(self) -> Client:
        """A new client of this engine."""
        return Client(self.address)

    def start(self, *, path: str | None = None) -> None:
        """Start the engine and wait until it answers; `path` replaces its PATH."""
        arguments = [f"--root={self.root}", f"--run-dir={self.run}", f"--listen={self.address}", "--log-level=debug"]
        arguments += [*self.quiet, *self.options]
        environment = {"PATH": path} if path else {}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, BIN / "trivetd", *arguments],
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, **environment},
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.client.system.ping()
                return
            except Exception:
                time.sleep(0.02)
        raise RuntimeError(f"trivetd did not come up:\n{self.log.read_text()[-4000:]}")

    def kill(self) -> None:
        """Kill the engine as `kill -9` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the engine politely; what runs goes on."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None

    def trivet(
        self,
        *arguments: str | Path,
        input: bytes | None = None,
        timeout: float = 120,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the command against this engine."""
        return subprocess.run(
            [BIN / "trivet", *arguments],
            input=input,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, "TRIVET_HOST": self.address, **(env or {})},
            check=False,
        )

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Run the command without waiting for it."""
        environment = {**os.environ, "TRIVET_HOST": self.address}
        return subprocess.Popen(
            [BIN / "trivet", *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def ok(self, *arguments: str | Path, input: bytes | None = None, timeout: float = 120) -> str:
        """Run the command, which must succeed; its output, stripped."""
        done = self.trivet(*arguments, input=input, timeout=timeout)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout.decode()}\n{done.stderr.decode()}"
        return done.stdout.decode().strip()

    def clean(self) -> None:
        """Remove every instance, then the engine with its networks."""
        if self._process is None:
            self.start()
        for instance in self.client.instances.list(all=True):
            with suppress(NotFound):  # one with --rm may be going by itself
                self.client.instances.remove(instance.id, force=True, volumes=True)
        self.stop()
        words: list[str | Path] = [BIN / "trivetd", f"--root={self.root}", f"--run-dir={self.run}", "--uninstall"]
        subprocess.run([*self.prefix, *words], check=True)


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running engine for the whole session; tests name their objects after themselves."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        engine = Daemon(tmp_path_factory.mktemp("engine"), run)
        undo.callback(engine.clean)
        engine.start()
        yield engine
