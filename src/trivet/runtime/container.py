"""A container as `trivet-runtime` keeps it: a directory under --root, found again by every later verb.

ROOT/ID/state.json             what was asked for
       monitor.sock pid exit   the monitor's (docs/launch.md)
       log                     output of a container nobody is attached to
       root/                   where the root file system is bound, in the container's mount namespace
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from trivet.base.error import AlreadyExists, Conflict, InvalidArgument, NotFound
from trivet.kernel import cgroup
from trivet.launch.channel import Channel
from trivet.launch.operation import Bind, Monitor, Operation
from trivet.launch.spawn import spawn
from trivet.oci import runtime as oci
from trivet.runtime import bundle as bundles
from trivet.runtime import device, enter, life, plan
from trivet.runtime.resource import resources
from trivet.runtime.setting import Setting

Word = Literal["created", "running", "paused", "stopped"]
_ID = re.compile(r"[A-Za-z0-9_+.-]{1,1024}")


class NoSuchContainer(NotFound):
    """An id nobody created."""

    def __init__(self, name: str) -> None:
        super().__init__(f"container {name} does not exist")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """state.json."""

    id: str
    bundle: str
    root: str
    cgroup: str
    created: float
    spec: oci.Spec


class Container:
    """One container of one --root."""

    def __init__(self, home: Path, kept: Kept) -> None:
        self.directory = home / kept.id
        self.kept = kept
        self.group = cgroup.Group(cgroup.detect(), kept.cgroup)

    @classmethod
    def create(
        cls, home: Path, name: str, bundle: Path, *, stdin: bool, size: oci.Box | None = None
    ) -> tuple[Container, Channel]:
        """Set a container up; its program waits. Nothing is left behind when that fails.

        `size` is the caller's terminal's, for a program with a terminal whose size the bundle leaves open.
        """
        if not _ID.fullmatch(name) or name in (".", ".."):
            raise InvalidArgument(f"container id {name!r} may hold letters, digits and _ + . - only")
        found = bundles.read(bundle)
        path = (found.spec.linux.cgroups_path if found.spec.linux else "") or f"trivet-runtime/{name}"
        kept = Kept(
            id=name,
            bundle=str(found.directory),
            root=str(found.root),
            cgroup=path,
            created=time.time(),
            spec=_sized(found.spec, size),
        )
        made = cls(home, kept)
        steps = made._launch(stdin)
        with ExitStack() as undo:
            made._claim()
            undo.callback(made.remove)
            made.group.create(resources(_resources(found.spec)))
            channel = spawn(steps, directory=made.directory)
            undo.pop_all()
        return made, channel

    @classmethod
    def find(cls, home: Path, name: str) -> Container:
        """Load one. Raises `NoSuchContainer`."""
        try:
            raw = (home / name / "state.json").read_bytes() if _ID.fullmatch(name) else None
        except (FileNotFoundError, NotADirectoryError):
            raw = None
        if raw is None:
            raise NoSuchContainer(name)
        return cls(home, msgspec.json.decode(raw, type=Kept))

    @classmethod
    def all(cls, home: Path) -> list[Container]:
        """Load all, by name."""
        return [cls.find(home, path.parent.name) for path in sorted(home.glob("*/state.json"))]

    @property
    def created(self) -> str:
        """Give the time of creation, RFC 3339."""
        return datetime.fromtimestamp(self.kept.created, UTC).isoformat().replace("+00:00", "Z")

    def status(self) -> tuple[Word, int]:
        """Tell the status and the program's pid (0 when it has ended)."""
        seen = life.observe(self.directory)
        if seen.process is None:
            return "stopped", 0
        if seen.word == "created":
            return "created", seen.process.pid
        return ("paused" if self.group.frozen() else "running"), seen.process.pid

    def state(self) -> oci.State:
        """Build what `state` prints and hooks read."""
        word, pid = self.status()
        return oci.State(
            oci_version=oci.VERSION,
            id=self.kept.id,
            status=word,
            pid=pid,
            bundle=self.kept.bundle,
            annotations=self.kept.spec.annotations,
        )

    def require(self, *words: Word) -> int:
        """Give the pid if the status is one of `words`. Raises `Conflict` naming it otherwise."""
        word, pid = self.status()
        if word not in words:
            raise Conflict(f"container {self.kept.id} is {word}, not {' or '.join(words)}")
        return pid

    def attach(self) -> Channel:
        """Connect to the monitor."""
        channel = Channel.connect(self.directory / "monitor.sock")
        channel.greet()
        return channel

    def exec(self, process: oci.Process, user: str | None, *, stdin: bool) -> Channel:
        """Set a further program up; it waits."""
        pid = self.require("running")
        linux = self.kept.spec.linux or oci.Linux()
        directory = self.directory / "exec" / secrets.token_hex(8)
        directory.mkdir(mode=0o700, parents=True)
        setting = Setting(
            root="/",
            monitor=Monitor(str(directory), linger=1),
            joins=self.group.joins,
            unified=self.group.unified,
            user=user,
            stdin=stdin,
        )
        kinds = {namespace.type for namespace in linux.namespaces}
        own = device.own_terminals(self.kept.spec.mounts)
        steps = enter.operations(process, linux, setting, pid, kinds, own_terminals=own)
        channel = spawn(steps, directory=directory)
        if self.status()[1] != pid:  # the pid could have been taken over while it was joined
            channel.close()
            raise Conflict(f"container {self.kept.id} has stopped")
        return channel

    def remove(self) -> None:
        """End and remove whatever there is of the container."""
        life.clear(self.directory, self.group)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _claim(self) -> None:
        self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self.directory.mkdir(mode=0o700)
        except FileExistsError as error:
            raise AlreadyExists(f"container {self.kept.id} already exists") from error
        (self.directory / "root").mkdir()
        (self.directory / "state.json").write_bytes(msgspec.json.encode(self.kept))

    def _launch(self, stdin: bool) -> list[Operation]:
        root = str(self.directory / "root")
        setting = Setting(
            root=root,
            mount=(Bind(self.kept.root, root, host=1, make=0),),
            monitor=Monitor(str(self.directory), log=str(self.directory / "log"), log_files=1, reap=self.group.reap),
            joins=self.group.joins,
            unified=self.group.unified,
            hierarchies=self.group.layout.hierarchies,
            stdin=stdin,
        )
        return plan.launch(self.kept.spec, setting)


def _sized(spec: oci.Spec, size: oci.Box | None) -> oci.Spec:
    if size is None or spec.process is None or spec.process.console_size is not None:
        return spec
    return msgspec.structs.replace(spec, process=msgspec.structs.replace(spec.process, console_size=size))


def _resources(spec: oci.Spec) -> oci.Resources:
    """Add the devices every container may use to the spec's own rules."""
    asked = (spec.linux.resources if spec.linux else None) or oci.Resources()
    forbidden, *usual = device.RULES
    return msgspec.structs.replace(asked, devices=(forbidden, *asked.devices, *usual))
