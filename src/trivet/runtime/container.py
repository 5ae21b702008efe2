"""A container as `trivet-runtime` keeps it: a directory under --root, found again by every later verb.

ROOT/ID/state.json             what was asked for
       pid                     the program (docs/launch.md)
       monitor.sock            while the program waits for `start`
       root/                   where the root file system is bound, in the container's mount namespace

The program is the caller's child, with the caller's streams; once it runs nothing of ours is left but these files.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import msgspec

from trivet.base.error import AlreadyExists, Conflict, InvalidArgument, NotFound
from trivet.kernel import cgroup
from trivet.kernel.cgroup_record import Resources
from trivet.launch import conductor as launch
from trivet.launch import monitor
from trivet.launch.failure import LaunchError
from trivet.launch.frame import Type
from trivet.launch.monitor import Process
from trivet.launch.operation import Bind, Exec, Find, Monitor, Operation, WriteFile, encode
from trivet.oci import runtime as oci
from trivet.runtime import bundle as bundles
from trivet.runtime import device, enter, hook, life, namespace, plan, resource, seccomp
from trivet.runtime.conductor import Conductor, check_console
from trivet.runtime.setting import Setting
from trivet.runtime.warning import warnings

Word = Literal["created", "running", "paused", "stopped"]
_ID = re.compile(r"[A-Za-z0-9_+.-]{1,1024}")
_NAME_MAX = 255


class NoSuchContainer(NotFound):
    """An id nobody created."""

    def __init__(self, name: str) -> None:
        super().__init__(f"container {name} does not exist")


class CannotExecute(NotFound):
    """The program could not be executed. Ends with the words by which Docker chooses between 126 and 127."""

    def __init__(self, name: str, number: int, cause: str) -> None:
        words = os.strerror(number).lower()
        if number == errno.ENOENT and "/" not in name:
            words = "executable file not found in $PATH"
        super().__init__(f"cannot execute {name}: {cause}: {words}")


class LimitRefused(InvalidArgument):
    """A limit that the kernel doesn't take."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write {error.filename}: {(error.strerror or str(error)).lower()}")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """state.json."""

    id: str
    bundle: str
    root: str
    cgroup: str
    created: float
    spec: oci.Spec


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How the caller wants a program started: options that aren't in the configuration."""

    console: Path | None = None
    preserved: int = 0
    pivot: bool = True
    keyring: bool = True
    size: oci.Box | None = None
    wait: bool = True
    warn: Callable[[str], None] = lambda message: None


class Begun(msgspec.Struct, frozen=True):
    """A program that was set up: our child, and its terminal's other side if nobody else got it."""

    pid: int
    master: int | None
    started: bool


class Container:
    """One container of one --root."""

    def __init__(self, home: Path, kept: Kept) -> None:
        self.directory = home / kept.id
        self.kept = kept
        self.group = cgroup.Group(cgroup.detect(), kept.cgroup)

    @classmethod
    def create(cls, home: Path, name: str, bundle: Path, way: Way, *, detached: bool) -> tuple[Container, Begun]:
        """Set a container up; its program waits for `start`. Nothing is left when that fails."""
        if not _ID.fullmatch(name) or name in (".", "..") or len(name) > _NAME_MAX:
            raise InvalidArgument(f"container id {name!r} may hold letters, digits and _ + . - only")
        found = bundles.read(bundle)
        path = (found.spec.linux.cgroups_path if found.spec.linux else "") or f"trivet-runtime/{name}"
        if ".." in path.split("/"):
            raise InvalidArgument(f"{path!r} leads out of the control groups - at `$.linux.cgroupsPath`")
        kept = Kept(
            id=name,
            bundle=str(found.directory),
            root=str(found.root),
            cgroup=path,
            created=time.time(),
            spec=_sized(found.spec, way.size),
        )
        check_console(kept.spec.process, way.console, detached=detached)
        made = cls(home, kept)
        return made, made._begin(way)

    def _begin(self, way: Way) -> Begun:
        spec, hooks = self.kept.spec, self.hooks
        for kind in hooks.__struct_fields__:
            hook.check(_camel(kind), getattr(hooks, kind))
        limits = resource.limits(spec, self.group.layout)
        steps = self._plan(way)
        encode(steps)
        with ExitStack() as undo:
            self._claim()
            undo.callback(self.remove, way.warn)
            for text in (*warnings(spec.process or oci.Process(cwd="/")), *resource.warnings(spec)):
                way.warn(text)
            self.limit(limits, create=True)
            begun = self._conduct(
                steps,
                way,
                Conductor(
                    self._profile,
                    self._state_of,
                    console=way.console,
                    join=self.group.add,
                    hooks=self._create_hooks,
                ),
            )
            undo.pop_all()
        return begun

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
        return self._state(*self.status())

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

    def start(self) -> None:
        """Let the program begin, between its hooks. Raises `CannotExecute` or `HookFailed`; it has ended then."""
        process = self.require("created")
        with ExitStack() as undo:
            undo.callback(self.group.kill)
            for one in self.hooks.start_container:
                self._inside("startContainer", one, process.pid)
            channel = monitor.connect(self.directory)
            if channel is None:
                raise Conflict(f"container {self.kept.id} has stopped")
            with channel:
                channel.attach(stdin=False, stdout=False, stderr=False)
                channel.go()
                while (frame := channel.receive()) is not None:
                    if frame.type is Type.FAILED:
                        number, text = int.from_bytes(frame.payload[4:8], "little"), frame.payload[8:]
                        raise CannotExecute(_name(self.kept.spec.process), number, text.decode(errors="replace"))
            for one in self.hooks.poststart:
                hook.on_host("poststart", one, self._encoded("running", process.pid), self.kept.bundle)
            undo.pop_all()

    def exec(self, process: oci.Process, user: str | None, way: Way, *, paused: bool, detached: bool) -> Begun:
        """Run a further program. Raises `Conflict` unless the container runs (or, with `paused`, is frozen)."""
        frozen: list[Word] = ["paused"] if paused else []
        target = self.require("running", *frozen)
        check_console(process, way.console, detached=detached)
        linux = self.kept.spec.linux or oci.Linux()
        with ExitStack() as undo:
            directory = self.directory / f"exec-{os.getpid()}"
            directory.mkdir(mode=0o700)
            undo.callback(_clear, directory)
            setting = self._setting(way, Monitor(str(directory)), user=user, wait=False, root="/")
            kinds = {namespace.type for namespace in linux.namespaces}
            own = device.own_terminals(self.kept.spec.mounts)
            process = _resized(process, way.size)
            steps = enter.operations(process, linux, setting, target.pid, kinds, own_terminals=own)
            for text in warnings(process):
                way.warn(text)
            return self._conduct(
                steps,
                way,
                Conductor(
                    self._profile,
                    self._state_of,
                    console=way.console,
                    joined=lambda _: self._certain(target),
                ),
            )

    def limit(self, limits: Resources, *, create: bool = False) -> None:
        """Set limits, in a group that is made first with `create`. Raises `LimitRefused`."""
        try:
            (self.group.create if create else self.group.apply)(limits)
        except OSError as error:
            raise LimitRefused(error) from error

    def remove(self, warn: Callable[[str], None]) -> None:
        """End and remove whatever there is of the container, then run the last hooks."""
        life.clear(self.directory, self.group)
        _clear(self.directory)
        for one in self.hooks.poststop:
            try:
                hook.on_host("poststop", one, self._encoded("stopped", 0), self.kept.bundle)
            except hook.HookFailed as error:
                warn(error.message)

    def _claim(self) -> None:
        # Everybody may pass: root of a user namespace has to, on the way to its root directory.
        home = self.directory.parent
        home.mkdir(mode=0o711, parents=True, exist_ok=True)
        if (mode := home.stat().st_mode) & 0o111 != 0o111:
            home.chmod(stat.S_IMODE(mode) | 0o111)
        try:
            self.directory.mkdir(mode=0o711)
        except FileExistsError as error:
            raise AlreadyExists(f"container {self.kept.id} already exists") from error
        self.directory.chmod(0o711)
        (self.directory / "root").mkdir(mode=0o755)
        descriptor = os.open(self.directory / "state.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(self.kept))

    def _plan(self, way: Way) -> list[Operation]:
        root = str(self.directory / "root")
        hooks = self.hooks
        setting = self._setting(
            way,
            Monitor(str(self.directory), reap=self.group.reap),
            root=root,
            mount=(Bind(self.kept.root, root, host=1, make=0),),
            hierarchies=self.group.layout.hierarchies,
            hooked=bool(hooks.prestart or hooks.create_runtime or hooks.create_container),
            parent=_mount_of(self.directory.parent),
            wait=way.wait or bool(hooks.start_container or hooks.poststart),
        )
        return plan.launch(self.kept.spec, setting)

    def _setting(self, way: Way, watch: Monitor, **more: object) -> Setting:
        return msgspec.structs.replace(
            Setting(
                root="/",
                monitor=watch,
                joins=self.group.joins,
                unified=self.group.unified,
                conducted=True,
                preserved=way.preserved,
                pivot=way.pivot,
                keyring=way.keyring,
                bundle=self.kept.bundle,
                group=self.group.path,
            ),
            **more,
        )

    def _conduct(self, steps: list[Operation], way: Way, conductor: Conductor) -> Begun:
        preserved = range(3, 3 + way.preserved)
        try:
            frame = launch.conduct(steps, conductor, preserved=preserved)
        except LaunchError as error:
            if isinstance(error.operation, Exec | Find):
                raise CannotExecute(error.operation.argv[0], error.errno, error.text) from error
            raise
        pid = int.from_bytes(frame.payload[:4], "little") if frame.type is Type.STARTED else self.status()[1]
        return Begun(pid, conductor.master, frame.type is Type.STARTED)

    def _create_hooks(self, pid: int) -> None:
        state = self._encoded("creating", pid)
        for kind, hooks in (("prestart", self.hooks.prestart), ("createRuntime", self.hooks.create_runtime)):
            for one in hooks:
                hook.on_host(kind, one, state, self.kept.bundle)
        linux = self.kept.spec.linux or oci.Linux()
        flags = sum(namespace.FLAGS[kind] for kind in {n.type for n in linux.namespaces} - {"time"})
        for one in self.hooks.create_container:
            hook.in_namespaces("createContainer", one, state, pid, flags, self._joins)

    def _inside(self, kind: str, one: oci.Hook, pid: int) -> None:
        """Run a hook in the container with the program's own rights: the file it names is the image's."""
        spec = self.kept.spec
        process = msgspec.structs.replace(
            spec.process or oci.Process(cwd="/"), args=(one.path, *one.args[1:]), env=one.env, terminal=False
        )
        linux = spec.linux or oci.Linux()
        if linux.seccomp is not None and seccomp.notifies(linux.seccomp):
            linux = msgspec.structs.replace(linux, seccomp=None)
        setting = Setting(root="/", joins=self.group.joins, unified=self.group.unified, wait=False)
        kinds = {namespace.type for namespace in linux.namespaces}
        hook.task(kind, one, enter.operations(process, linux, setting, pid, kinds), self._encoded("created", pid))

    @property
    def _joins(self) -> list[WriteFile]:
        return [WriteFile(write.path, write.value.encode()) for write in self.group.joins]

    def _certain(self, target: Process) -> None:
        if not target.lives():  # its pid could have been taken over while it was joined
            raise Conflict(f"container {self.kept.id} has stopped")

    @property
    def _profile(self) -> oci.Seccomp | None:
        return self.kept.spec.linux.seccomp if self.kept.spec.linux else None

    def _state_of(self, pid: int) -> oci.State:
        return self._state("creating", pid)

    def _state(self, word: Literal["creating", "created", "running", "paused", "stopped"], pid: int) -> oci.State:
        return oci.State(
            oci_version=oci.VERSION,
            id=self.kept.id,
            status=word,
            pid=pid,
            bundle=self.kept.bundle,
            annotations=self.kept.spec.annotations,
        )

    def _encoded(self, word: Literal["creating", "created", "running", "paused", "stopped"], pid: int) -> bytes:
        return msgspec.json.encode(self._state(word, pid))


def _sized(spec: oci.Spec, size: oci.Box | None) -> oci.Spec:
    return spec if spec.process is None else msgspec.structs.replace(spec, process=_resized(spec.process, size))


def _resized(process: oci.Process, size: oci.Box | None) -> oci.Process:
    """Give a terminal whose size is left open that of the caller's."""
    if size is None or not process.terminal or process.console_size is not None:
        return process
    return msgspec.structs.replace(process, console_size=size)


def _mount_of(path: Path) -> str:
    """Find the mount that a path lies on."""
    return str(next(parent for parent in (path, *path.parents) if os.path.ismount(parent)))


def _clear(directory: Path) -> None:
    """Remove a directory of ours; an empty root/ and directories of exec are all it may hold besides files."""
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _clear(Path(entry.path))
        else:
            Path(entry.path).unlink()
    directory.rmdir()


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _name(process: oci.Process | None) -> str:
    return process.args[0] if process and process.args else ""
