"""A host of its own for one run: an engine that is told how much it has, and instances whose need can be set."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from trivet.base.error import TrivetError
from trivet.client.client import Client
from trivet.client.schema import ExecRequest, InstanceRequest, LevelName
from trivet.client.schema_capacity import Share
from trivet.kernel import cgroup, cgroup_memory

PROGRAM = Path(sys.executable).with_name("trivetd")
SOURCE = Path(__file__).with_name("load.c")
IMAGE = "overbooked:demo"
MEBIBYTE = 1 << 20
UP = 30.0


class Failed(Exception):
    """Something that was promised didn't happen; one sentence says what."""


class World:
    """One engine and its instances. Sizes are MiB."""

    def __init__(self, run: Path, options: Sequence[str]) -> None:
        self.root = run / "root"
        self._run = run
        self._words = [str(PROGRAM), f"--root={self.root}", f"--run-dir={run}", "--docker-listen=none", *options]
        self._engine: subprocess.Popen[bytes] | None = None
        self._pids: dict[str, int] = {}
        self.client = Client(f"unix://{run}/trivet.sock")

    def start(self) -> None:
        """Start the engine and wait until it answers."""
        with (self._run / "log").open("ab") as log:
            self._engine = subprocess.Popen(self._words, stderr=log, stdin=subprocess.DEVNULL)
        until(self._answers, "the engine does not answer", UP)

    def end(self) -> None:
        """End the engine politely; what runs goes on."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the engine."""
        self._signal(signal.SIGKILL)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let the engine decide nothing for a while."""
        if self._engine is None:
            raise Failed("no engine runs")
        self._engine.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._engine.send_signal(signal.SIGCONT)

    def clean(self) -> None:
        """Remove every instance, and the engine from the host."""
        if self._engine is None:
            self.start()
        for instance in self.client.instances.list(all=True):
            self.client.instances.remove(instance.id, force=True, volumes=True)
        self.end()
        subprocess.run([*self._words, "--uninstall"], stdin=subprocess.DEVNULL, check=True)

    def trivet(self, *words: str, given: bytes = b"") -> str:
        """Run the command; what it printed. Raises `Failed`."""
        command = [str(PROGRAM.with_name("trivet")), "--host", f"unix://{self._run}/trivet.sock", *words]
        done = subprocess.run(command, input=given, capture_output=True)
        if done.returncode:
            raise Failed(f"trivet {' '.join(words)}: {done.stderr.decode().strip()}")
        return done.stdout.decode()

    def _answers(self) -> bool:
        if self._engine is None or self._engine.poll() is not None:
            raise Failed(f"the engine ended: {(self._run / 'log').read_text()[-500:]}")
        try:
            self.client.system.ping()
        except TrivetError:
            return False
        return True

    def _signal(self, number: int) -> None:
        if self._engine is not None:
            self._engine.send_signal(number)
            self._engine.wait()
            self._engine = None

    def begin(self, name: str, level: LevelName, minimum: int, maximum: int, weight: int) -> list[str]:
        """Create and start an instance; what the engine warned of."""
        made = self.client.instances.create(
            InstanceRequest(
                image=IMAGE,
                name=name,
                isolation=level,
                memory=maximum * MEBIBYTE,
                memory_reservation=minimum * MEBIBYTE,
                cpu_shares=weight,
                command=["/load"],
            )
        )
        self.client.instances.start(made.id)
        self._pids[name] = self.client.instances.get(made.id).pid
        return made.warnings

    def want(self, name: str, size: int) -> None:
        """Tell an instance how much memory to use."""
        self.run(name, "sh", "-c", f"echo {size} > /tmp/new; mv /tmp/new /tmp/want")

    def want_later(self, name: str, size: int, seconds: int) -> None:
        """Let an instance be told after a while, whatever becomes of the engine."""
        command = ["sh", "-c", f"sleep {seconds}; echo {size} > /tmp/want"]
        self.client.instances.exec_detached(name, ExecRequest(command=command, detach=True))

    def want_at(self, moment: int, name: str, size: int) -> None:
        """Tell an instance at a moment of Unix time, however long it takes to get there."""
        self.run(name, "sh", "-c", f"while [ $(date +%s) -lt {moment} ]; do sleep 0.2; done; echo {size} > /tmp/want")

    def run(self, name: str, *command: str) -> str:
        """Run a program in an instance; what it printed."""
        return self.trivet("exec", name, *command)

    def bound(self, name: str) -> int:
        """Read what the kernel lets an instance have, also while no engine runs."""
        lines = Path("/proc", str(self._pids[name]), "cgroup").read_text().splitlines()
        path = next(line.split(":", 2)[2] for line in lines if line.split(":")[1] in ("memory", ""))
        return cgroup_memory.measure(cgroup.Group(cgroup.detect(), path)).bound

    def shares(self) -> dict[str, Share]:
        """Measure all instances, by name."""
        return {share.name: share for share in self.client.capacity.get().shares}

    def used(self, name: str) -> float:
        """Tell how much memory an instance uses."""
        return self.shares()[name].used / MEBIBYTE


def until(done: Callable[[], bool], complaint: str, seconds: float, step: float = 0.2) -> float:
    """Wait for something; the seconds it took. Raises `Failed`."""
    begin = time.monotonic()
    while not done():
        if time.monotonic() - begin > seconds:
            raise Failed(f"{complaint} within {seconds:.0f} s")
        time.sleep(step)
    return time.monotonic() - begin


@contextmanager
def world(memory: int, *options: str) -> Iterator[World]:
    """Run an engine that has `memory` MiB for its instances; all of it is gone afterwards."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        made = World(run, [f"--memory={memory}m", *options])
        undo.callback(made.clean)
        made.start()
        made.trivet("import", "-q", "-", IMAGE, given=_image())
        yield made


def _image() -> bytes:
    """Make the root file system: busybox as its shell, and the load."""
    output = io.BytesIO()
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(fileobj=output, mode="w") as tar:
        program = Path(scratch, "load")
        subprocess.run(["musl-gcc", "-O2", "-static", "-s", "-o", program, SOURCE], check=True)
        for name in ("bin", "etc", "proc", "dev", "sys", "tmp", "run"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(directory)
        busybox = shutil.which("busybox")
        if busybox is None:
            raise Failed("there is no busybox: install busybox-static")
        for name, source in (("load", program), ("bin/busybox", Path(busybox))):
            tar.add(source.resolve(), name, filter=_plain)
        for name in ("sh", "cat", "mv", "grep"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return output.getvalue()


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode, entry.uid, entry.gid = 0o755, 0, 0
    return entry
