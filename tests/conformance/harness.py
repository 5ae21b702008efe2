"""What the contract suite holds in its hand: an instance that can be run, started, entered and looked at."""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conformance.expectation import EXPECTATION

from trivet.isolation.driver import Driver, Exit, Status
from trivet.isolation.failure import explain
from trivet.isolation.plan import Attachment, Limits, Log, Owner, Plan, Program, Root, Security
from trivet.kernel import capability
from trivet.launch.channel import Channel
from trivet.launch.frame import Type
from trivet.launch.operation import Exec

CGROUP = f"trivet-contract-{os.getpid()}"
PATH = "PATH=/bin:/usr/bin:/sbin:/usr/sbin"


class EngineUmask:
    """The engine's umask while anybody is within: it is the whole process's, and tests start in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._before = 0

    def __enter__(self) -> None:
        with self._lock:
            self._within += 1
            if self._within == 1:
                self._before = os.umask(0o077)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            if self._within == 0:
                os.umask(self._before)


_UMASK = EngineUmask()


class Result(msgspec.Struct, frozen=True):
    """How a program ended and what it wrote."""

    code: int
    stdout: bytes
    stderr: bytes
    exit: Exit

    @property
    def text(self) -> str:
        """Give the output without its last line end."""
        return self.stdout.decode().rstrip("\n")

    @property
    def lines(self) -> list[str]:
        """Give the output by lines."""
        return self.stdout.decode().splitlines()


class Session:
    """A program that runs: the instance's own or an added one."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.stdout = b""
        self.stderr = b""
        self.exit: Exit | None = None
        self.begun = False
        self.failed = b""

    def go(self, program: Program) -> Session:
        """Let the program begin. Raises what the level says when it can't be executed."""
        self.channel.go()
        while not self.begun:
            assert self._step(time.monotonic() + 60), "the channel ended before the program began"
            if self.failed:
                errno, text = int.from_bytes(self.failed[4:8], "little"), self.failed[8:].decode()
                raise explain(Exec(program.argv, program.env), errno, text, "the instance")
        return self

    def until(self, wanted: bytes, seconds: float = 30) -> bytes:
        """Read until `wanted` was written."""
        deadline = time.monotonic() + seconds
        while wanted not in self.stdout + self.stderr:
            assert self._step(deadline), f"ended before {wanted!r}: {self.stdout!r} {self.stderr!r}"
        return self.stdout

    def wait(self, seconds: float = 60) -> Result:
        """Read to the end."""
        deadline = time.monotonic() + seconds
        while self._step(deadline):
            pass
        assert self.exit is not None, "the channel ended without an exit"
        self.channel.close()
        return Result(self.exit.code, self.stdout, self.stderr, self.exit)

    def _step(self, deadline: float) -> bool:
        frame = self.channel.receive(timeout=max(0.01, deadline - time.monotonic()))
        match frame:
            case None:
                return False
            case _ if frame.type is Type.STDOUT:
                self.stdout += frame.payload
            case _ if frame.type is Type.STDERR:
                self.stderr += frame.payload
            case _ if frame.type is Type.STARTED:
                self.begun = True
            case _ if frame.type is Type.FAILED:
                self.failed = frame.payload
            case _ if frame.type is Type.EXIT:
                self.exit = decode_exit(frame.payload)
                return False
        return True


def decode_exit(payload: bytes) -> Exit:
    """Read an EXIT frame's payload."""
    words = [int.from_bytes(payload[a:b], "little") for a, b in ((0, 4), (4, 8), (8, 16), (16, 20))]
    return Exit(code=words[0], signal=words[1], time=words[2], out_of_memory=bool(words[3] & 1))


class Harness:
    """One instance at one level."""

    def __init__(self, driver: Driver, image: Path, state: Path, run: Path) -> None:
        self.driver = driver
        self.level = driver.level
        self.state = state
        self.id = secrets.token_hex(6)
        self.directory = run / self.id  # as the engine has it, and control groups likewise
        self.log = state / "log"
        self.root = self._make_root(image)
        first = 0x7000_0000 + 65536 * secrets.randbelow(4096)
        self.owner = Owner(path=str(self.directory / "user"), first=first) if self.level == "container" else None
        self.plan = self.planned("true")

    def expect(self, row: str) -> Any:
        """Look up what this level is expected to do."""
        return EXPECTATION[row].at(self.level)

    def only_with(self, row: str) -> None:
        """Skip, with the table's reason, at a level that doesn't have this."""
        if not self.expect(row):
            pytest.skip(f"{self.level}: {EXPECTATION[row].reason}")

    def planned(self, *argv: str, **changes: Any) -> Plan:
        """Build a plan; keywords are fields of the program or of the plan."""
        program = {name: changes.pop(name) for name in Program.__struct_fields__ if name in changes}
        limits = {name: changes.pop(name) for name in Limits.__struct_fields__ if name in changes}
        program["env"] = (PATH, *program.get("env", ()))
        network = self.driver.ability().network
        defaults: dict[str, Any] = {
            "security": Security(capabilities=capability.DEFAULT),
            "attachments": (Attachment(kind="host" if network == "host" else "none", network=""),),
            "hostname": "box",
        }
        if self.owner and not changes.get("security", defaults["security"]).privileged:
            defaults["owner"] = self.owner
        return Plan(
            id=self.id,
            name=f"test-{self.id}",
            level=self.level,
            program=Program(argv=argv, **program),
            root=changes.pop("root", self.root),
            directory=str(self.directory),
            cgroup=f"{CGROUP}/{self.id}",
            log=Log(path=str(self.log)),
            limits=Limits(**limits),
            **(defaults | changes),
        )

    def create(self, *argv: str, **changes: Any) -> Session:
        """Set the program up; it waits."""
        self.plan = self.planned(*argv, **changes)
        with _UMASK:
            self.driver.prepare(self.plan)
            channel = self.driver.start(self.plan)
        channel.attach()
        return Session(channel)

    def start(self, *argv: str, **changes: Any) -> Session:
        """Set the program up and let it go."""
        return self.create(*argv, **changes).go(self.plan.program)

    def run(self, *argv: str, seconds: float = 60, **changes: Any) -> Result:
        """Run a program to its end, and release the instance: its files stay."""
        try:
            return self.start(*argv, **changes).wait(seconds)
        finally:
            self.driver.release(self.plan)

    def shell(self, script: str, **changes: Any) -> Result:
        """Run a shell script to its end."""
        return self.run("sh", "-c", script, **changes)

    def exec(self, *argv: str, **changes: Any) -> Session:
        """Add a program to the running instance."""
        changes["env"] = (PATH, *changes.get("env", ()))
        return self.enter(Program(argv=argv, **changes))

    def enter(self, program: Program) -> Session:
        """Add a program just as given."""
        channel = self.driver.exec(self.plan, program)
        channel.attach()
        return Session(channel).go(program)

    def status(self) -> Status:
        """Ask the driver."""
        return self.driver.status(self.plan)

    def becomes(self, word: str, seconds: float = 20) -> Status:
        """Wait for a status."""
        deadline = time.monotonic() + seconds
        while (status := self.status()).word != word:
            assert time.monotonic() < deadline, f"still {status}, not {word}"
            time.sleep(0.01)
        return status

    def mounts(self) -> list[str]:
        """List the mounts on the host that belong to the instance, but for namespaces kept as files."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        ours = [line for line in lines if str(self.directory) in line or str(self.state) in line]
        return [line for line in ours if " - nsfs " not in line]

    def close(self) -> None:
        """Leave nothing behind."""
        self.driver.release(self.plan)

    def _make_root(self, image: Path) -> Root:
        if image.is_dir():
            for name in ("upper", "work"):
                (self.state / name).mkdir()
            return Root(
                form="mount", lowers=(str(image),), upper=str(self.state / "upper"), work=str(self.state / "work")
            )
        drive = self.state / "upper.ext4"
        with drive.open("wb") as file:
            file.truncate(256 << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1", drive], check=True)
        return Root(form="drive", lowers=(str(image),), upper=str(drive))
