"""A container as `trivet-runtime` keeps it: a directory under --root, found again by every later verb.

ROOT/ID/state.json             what was asked for
       brief                   the same for the front (runtime/brief.py)
       pid                     the program (docs/launch.md)
       monitor.sock            while the program waits for `start`
       root/                   where the root file system is bound, in the container's mount namespace

Once the program runs nothing of ours is left but these files.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from trivet.base.error import AlreadyExists, Conflict, Denied, InvalidArgument, NotFound
from trivet.kernel import cgroup
from trivet.kernel.cgroup_record import Resources
from trivet.launch import monitor
from trivet.launch.monitor import Process
from trivet.oci import runtime as oci
from trivet.runtime import brief, hook, life
from trivet.runtime import group as groups
from trivet.runtime.bundle import Bundle

Word = Literal["created", "running", "paused", "stopped"]
_ID = re.compile(r"[A-Za-z0-9_+.-]{1,1024}")
_NAME_MAX = 255


class NoSuchContainer(NotFound):
    """An id nobody created."""

    def __init__(self, name: str) -> None:
        super().__init__(f"container {name} does not exist")


class LimitRefused(InvalidArgument):
    """A limit that the kernel doesn't take."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write {error.filename}: {(error.strerror or str(error)).lower()}")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """state.json."""

    id: str
    bundle: str
    root: str
    group: groups.Choice
    created: float
    spec: oci.Spec
    rootless: bool = False


class Container:
    """One container of one --root."""

    def __init__(self, home: Path, kept: Kept) -> None:
        self.directory = home / kept.id
        self.kept = kept
        self.group = groups.find(kept.group, kept.id, self.process)

    @classmethod
    def new(cls, home: Path, name: str, found: Bundle, *, rootless: bool, systemd: bool = False) -> Container:
        """Think one up, which isn't there before `claim`. Raises `InvalidArgument` or `Unsupported`."""
        if not _ID.fullmatch(name) or name in (".", "..") or len(name) > _NAME_MAX:
            raise InvalidArgument(f"container id {name!r} may hold letters, digits and _ + . - only")
        kept = Kept(
            id=name,
            bundle=str(found.directory),
            root=str(found.root),
            group=groups.choose(found.spec, name, rootless=rootless, systemd=systemd),
            created=time.time(),
            spec=found.spec,
            rootless=rootless,
        )
        return cls(home, kept)

    @classmethod
    def find(cls, home: Path, name: str) -> Container:
        """Load one. Raises `NoSuchContainer`."""
        try:
            raw = (home / name / "state.json").read_bytes() if _ID.fullmatch(name) else None
        except OSError:
            raw = None
        if raw is None:
            raise NoSuchContainer(name)
        return cls(home, msgspec.json.decode(raw, type=Kept))

    @classmethod
    def all(cls, home: Path) -> list[Container]:
        """Load all, by name."""
        return [cls.find(home, path.parent.name) for path in sorted(home.glob("*/state.json"))]

    @property
    def hooks(self) -> oci.Hooks:
        """Give the hooks, of which there may be none."""
        return self.kept.spec.hooks or oci.Hooks()

    @property
    def created(self) -> str:
        """Give the time of creation, RFC 3339."""
        seconds, fraction = divmod(self.kept.created, 1)
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f"{fraction:.6f}Z"[1:]

    def status(self) -> tuple[Word, int]:
        """Tell the status and the program's pid (0 when it has ended)."""
        process = self.process()
        if process is None:
            return "stopped", 0
        if (self.directory / "monitor.sock").exists():
            return "created", process.pid
        return ("paused" if self.group.frozen() else "running"), process.pid

    def process(self) -> Process | None:
        """Give the program while it lives."""
        process = monitor.read_process(self.directory)
        ended = process is None or not process.lives() or monitor.read_ending(self.directory) is not None
        return None if ended else process

    def state(self) -> oci.State:
        """Build what `state` prints and hooks read."""
        return self.record(*self.status())

    def require(self, *words: Word) -> Process:
        """Give the program if the status is one of `words`. Raises `Conflict` naming it otherwise."""
        self.expect(*words)
        process = self.process()
        if process is None:
            raise Conflict(f"container {self.kept.id} is stopped, not {' or '.join(words)}")
        return process

    def expect(self, *words: Word) -> None:
        """Raise `Conflict` unless the status is one of `words`."""
        word, _ = self.status()
        if word not in words:
            raise Conflict(f"container {self.kept.id} is {word}, not {' or '.join(words)}")

    def below(self, path: str) -> cgroup.Group:
        """Give the control group at `path` below the container's own. Raises `InvalidArgument`."""
        parts = [part for part in path.split("/") if part]
        if not parts:
            return self.group
        group = cgroup.Group(self.group.layout, "/".join((self.group.path, *parts)))
        if {".", ".."} & set(parts) or not all(Path(place).is_dir() for place in group.directories):
            raise InvalidArgument(f"container {self.kept.id} has no control group {path!r}")
        return group

    def expect_free(self) -> None:
        """Raise `AlreadyExists`, or `Conflict` when others are in the control group: they would end with it."""
        if self.directory.exists():
            raise AlreadyExists(f"container {self.kept.id} already exists")
        if self.group.processes():
            raise Conflict(f"control group {self.group.path} already holds processes - at `$.linux.cgroupsPath`")

    def limit(self, limits: Resources, *, create: bool = False) -> None:
        """Set limits, in a group that is made first with `create`. Raises `LimitRefused`."""
        try:
            (self.group.create if create else self.group.apply)(limits)
        except OSError as error:
            raise LimitRefused(error) from error

    def remove(self, warn: Callable[[str], None]) -> None:
        """End and remove whatever there is of the container, then run the last hooks."""
        life.clear(self.directory, self.group)
        clear(self.directory)
        for one in self.hooks.poststop:
            try:
                hook.on_host("poststop", one, self.told("stopped", 0), self.kept.bundle)
            except hook.HookFailed as error:
                warn(error.message)

    def _make_home(self) -> None:
        # Everybody may pass: root of a user namespace has to, on the way to its root directory. And nobody tidies up
        # what is sticky (XDG Base Directory Specification).
        home, wanted = self.directory.parent, 0o1111 if self.kept.rootless else 0o111
        home.mkdir(mode=0o711, parents=True, exist_ok=True)
        if (mode := stat.S_IMODE(home.stat().st_mode)) & wanted != wanted:
            home.chmod(mode | wanted)

    def claim(self) -> None:
        """Make the container's directory. Raises `AlreadyExists` or `Denied`."""
        try:
            self._make_home()
            self.directory.mkdir(mode=0o711)
        except FileExistsError as error:
            raise AlreadyExists(f"container {self.kept.id} already exists") from error
        except PermissionError as error:
            message = f"cannot keep state in {self.directory.parent}: permission denied"
            raise Denied(message, hint="--root, or XDG_RUNTIME_DIR, names a directory of your own") from error
        self.directory.chmod(0o711)
        (self.directory / "root").mkdir(mode=0o755)
        _write(self.directory / "state.json", msgspec.json.encode(self.kept))
        _write(self.directory / brief.NAME, self.brief.encode())

    @property
    def brief(self) -> str:
        """Give what the front has to know."""
        state = self.record("created", 0)
        unit = bool(self.kept.group.unit)
        return brief.brief(state, self.kept.root, self.created, self.hooks, self.group, unit=unit)

    @property
    def profile(self) -> oci.Seccomp | None:
        """Give the system call filter, if there is one."""
        return self.linux.seccomp

    @property
    def linux(self) -> oci.Linux:
        """Give the Linux part of the configuration."""
        return self.kept.spec.linux or oci.Linux()

    def record(self, word: Literal["creating", "created", "running", "paused", "stopped"], pid: int) -> oci.State:
        """Build a state with this status."""
        return oci.State(
            oci_version=oci.VERSION,
            id=self.kept.id,
            status=word,
            pid=pid,
            bundle=self.kept.bundle,
            annotations=self.kept.spec.annotations,
        )

    def told(self, word: Literal["creating", "created", "running", "paused", "stopped"], pid: int) -> bytes:
        """Write a state with this status, as hooks read it."""
        return msgspec.json.encode(self.record(word, pid))


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def clear(directory: Path) -> None:
    """Remove a directory of ours; an empty root/ and directories of exec are all it may hold besides files."""
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            clear(Path(entry.path))
        else:
            Path(entry.path).unlink(missing_ok=True)
    with suppress(FileNotFoundError):  # whoever waits for the program may be removing it, too
        directory.rmdir()
