"""Programs of a container: its own, created and then started, and those that exec adds.

The program is the caller's child, with the caller's streams: whoever called the runtime waits for it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from trivet.base.error import Conflict, NotFound
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
from trivet.runtime import device, enter, hook, namespace, netdevice, plan, resource, rootless, seccomp, template
from trivet.runtime import group as groups
from trivet.runtime.conductor import Conductor, check_console
from trivet.runtime.container import Container, Word, clear
from trivet.runtime.setting import Setting
from trivet.runtime.warning import foreign, warnings


class CannotExecute(NotFound):
    """The program could not be executed. Ends with the words by which Docker chooses between 126 and 127."""

    def __init__(self, name: str, number: int, cause: str) -> None:
        words = os.strerror(number).lower()
        if number == errno.ENOENT and "/" not in name:
            words = "executable file not found in $PATH"
        super().__init__(f"cannot execute {name}: {cause}: {words}")


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How the caller wants a program started: options that aren't in the configuration."""

    console: Path | None = None
    preserved: int = 0
    pivot: bool = True
    keyring: bool = True
    rootless: bool = False
    systemd: bool = False
    size: oci.Box | None = None
    variables: tuple[str, ...] = ()
    group: str = ""
    wait: bool = True
    warn: Callable[[str], None] = lambda message: None


class Begun(msgspec.Struct, frozen=True):
    """A program that was set up: our child, and its terminal's other side if nobody else got it."""

    pid: int
    master: int | None
    started: bool


def create(home: Path, name: str, bundle: Path, way: Way, *, detached: bool) -> tuple[Container, Begun]:
    """Set a container up; unless `way.wait` is False its program waits for `start`. Nothing is left on failure."""
    made = Container.new(home, name, bundles.read(bundle), rootless=way.rootless, systemd=way.systemd)
    spec = made.kept.spec
    check_console(spec.process, way.console, detached=detached)
    for kind in made.hooks.__struct_fields__:
        hook.check(_camel(kind), getattr(made.hooks, kind))
    limits = limits_of(made, way)
    steps = plan_of(made, way)
    encode(steps)
    with ExitStack() as undo:
        made.expect_free()
        made.claim()
        undo.callback(made.remove, way.warn)
        process = spec.process or oci.Process(cwd="/")
        for text in (*warnings(process, made.linux), *resource.warnings(spec), *foreign(spec)):
            way.warn(text)
        made.limit(limits, create=True)
        if (user := groups.owner(spec)) is not None and not rootless.ordinary():
            made.group.give(user)
        conductor = Conductor(
            made.profile,
            lambda pid: made.record("creating", pid),
            console=way.console,
            join=made.group.add,
            hooks=lambda pid: _create_hooks(made, pid),
            devices=lambda pid: netdevice.move(made.linux, pid),
            maps=lambda pid: rootless.write_maps(pid, made.linux),
        )
        begun = _conduct(made, steps, way, conductor)
        made.group.settle()
        undo.pop_all()
    return made, begun


def start(container: Container) -> None:
    """Let the program begin, between its hooks. Raises `CannotExecute` or `HookFailed`; it has ended then."""
    with ExitStack() as undo:
        if isinstance(failure := monitor.read_ending(container.directory), monitor.Failure):
            undo.callback(container.group.kill)  # the front said GO, and leaves the words to us
            raise _not_executed(container, failure.errno, failure.text)
        process = container.require("created")
        undo.callback(container.group.kill)
        for one in container.hooks.start_container:
            _inside(container, one, process.pid)
        _go(container)
        for one in container.hooks.poststart:
            hook.on_host("poststart", one, container.told("running", process.pid), container.kept.bundle)
        undo.pop_all()


def execute(
    container: Container, process: oci.Process, user: str | None, way: Way, *, paused: bool, detached: bool
) -> Begun:
    """Run a further program. Raises `Conflict` unless the container runs (or, with `paused`, is frozen)."""
    frozen: list[Word] = ["paused"] if paused else []
    target = container.require("running", *frozen)
    check_console(process, way.console, detached=detached)
    linux = container.linux
    with ExitStack() as undo:
        directory = container.directory / f"exec-{os.getpid()}"
        directory.mkdir(mode=0o700)
        undo.callback(clear, directory)
        steps = exec_plan_of(container, _completed(process, way), user, way, target.pid, str(directory))
        for text in warnings(process, linux):
            way.warn(text)
        conductor = Conductor(
            container.profile,
            lambda _: container.state(),
            console=way.console,
            joined=lambda pid: _certain(container, target, pid),
        )
        return _conduct(container, steps, way, conductor)


def exec_plan_of(
    container: Container, process: oci.Process, user: str | None, way: Way, pid: int, directory: str
) -> list[Operation]:
    """Compute what the launcher does for a further program; `pid` is the container's own."""
    setting = _setting(container, way, Monitor(directory), user=user, wait=False)
    if setting.unified and not way.group:
        setting = msgspec.structs.replace(setting, unified=container.group.beside(pid))
    kinds = {namespace.type for namespace in container.linux.namespaces}
    own = device.own_terminals(container.kept.spec.mounts)
    return enter.operations(process, container.linux, setting, pid, kinds, own_terminals=own)


def keep_exec(container: Container, process: oci.Process, asked: Iterable[str], way: Way) -> None:
    """Leave the plan of such programs to the front, unless they need somebody who answers."""
    listening = container.profile is not None and bool(container.profile.listener_path)
    if not (process.terminal or listening or container.group.moved or rootless.ordinary()):
        template.keep(
            container,
            process,
            asked,
            lambda one, pid, directory: exec_plan_of(container, one, None, way, pid, directory),
        )


def limits_of(container: Container, way: Way) -> Resources:
    """Translate the limits, once it is sure that what is asked for can be had. Raises `Unsupported`."""
    spec = container.kept.spec
    if rootless.ordinary():
        rootless.check(spec)
    if not container.group.directories and not namespace.has(container.linux.namespaces, "pid", new=True):
        raise groups.NoGroup(container.kept.id, "end without a pid namespace of its own")
    own = resource.completed(spec, rootless=way.rootless)
    return resource.limits(own, container.group.layout, delegated=way.rootless)


def _go(container: Container) -> None:
    channel = monitor.connect(container.directory)
    if channel is None:
        raise Conflict(f"container {container.kept.id} has stopped")
    with channel:
        channel.attach(stdin=False, stdout=False, stderr=False)
        channel.go()
        while (frame := channel.receive()) is not None:
            if frame.type is Type.FAILED:
                number, text = int.from_bytes(frame.payload[4:8], "little"), frame.payload[8:]
                raise _not_executed(container, number, text.decode(errors="replace"))


def _not_executed(container: Container, number: int, text: str) -> CannotExecute:
    process = container.kept.spec.process
    return CannotExecute(process.args[0] if process and process.args else "", number, text)


def plan_of(container: Container, way: Way) -> list[Operation]:
    """Compute what the launcher does for a container."""
    root = str(container.directory / "root")
    hooks = container.hooks
    setting = _setting(
        container,
        way,
        Monitor(str(container.directory), reap=container.group.reap),
        root=root,
        mount=(Bind(container.kept.root, root, host=1, make=0),),
        hierarchies=cgroup.detect().hierarchies,
        network=netdevice.operations(container.linux),
        hooked=bool(hooks.prestart or hooks.create_runtime or hooks.create_container),
        parent=_mount_of(container.directory.parent),
        wait=way.wait or bool(hooks.start_container or hooks.poststart),
    )
    process = container.kept.spec.process
    own = process and _completed(process, way)
    spec = resource.completed(container.kept.spec, rootless=container.kept.rootless)
    if not container.group.directories:
        spec = rootless.without_groups(spec)
    return plan.launch(msgspec.structs.replace(spec, process=own), setting)


def _setting(container: Container, way: Way, watch: Monitor, **more: object) -> Setting:
    group = container.below(way.group)
    return msgspec.structs.replace(
        Setting(
            root="/",
            monitor=watch,
            joins=group.joins,
            unified=group.unified,
            conducted=True,
            preserved=way.preserved,
            pivot=way.pivot,
            keyring=way.keyring,
            bundle=container.kept.bundle,
            group=container.group.path if container.group.directories else "",
            ordinary=rootless.ordinary(),
            confined=container.kept.rootless,
        ),
        **more,
    )


def _conduct(container: Container, steps: list[Operation], way: Way, conductor: Conductor) -> Begun:
    preserved = range(3, 3 + way.preserved)
    try:
        frame = launch.conduct(steps, conductor, preserved=preserved)
    except LaunchError as error:
        if isinstance(error.operation, Exec | Find):
            raise CannotExecute(error.operation.argv[0], error.errno, error.text) from error
        raise
    pid = int.from_bytes(frame.payload[:4], "little") if frame.type is Type.STARTED else container.status()[1]
    return Begun(pid, conductor.master, frame.type is Type.STARTED)


def _create_hooks(container: Container, pid: int) -> None:
    state = container.told("creating", pid)
    for kind, hooks in (("prestart", container.hooks.prestart), ("createRuntime", container.hooks.create_runtime)):
        for one in hooks:
            hook.on_host(kind, one, state, container.kept.bundle)
    linux = container.linux
    flags = sum(namespace.FLAGS[kind] for kind in {n.type for n in linux.namespaces} - {"time"})
    for one in container.hooks.create_container:
        hook.in_namespaces("createContainer", one, state, pid, flags, _joins(container))


def _inside(container: Container, one: oci.Hook, pid: int) -> None:
    """Run a hook in the container with the program's own rights: the file it names is the image's."""
    spec = container.kept.spec
    process = msgspec.structs.replace(
        spec.process or oci.Process(cwd="/"), args=(one.path, *one.args[1:]), env=one.env, terminal=False
    )
    linux = container.linux
    if linux.seccomp is not None and seccomp.notifies(linux.seccomp):
        linux = msgspec.structs.replace(linux, seccomp=None)
    setting = Setting(root="/", joins=container.group.joins, unified=container.group.unified, wait=False)
    kinds = {namespace.type for namespace in linux.namespaces}
    hook.task(
        "startContainer", one, enter.operations(process, linux, setting, pid, kinds), container.told("created", pid)
    )


def _certain(container: Container, target: Process, pid: int) -> None:
    if not target.lives():  # its pid could have been taken over while it was joined
        raise Conflict(f"container {container.kept.id} has stopped")
    if container.group.moved:
        container.group.add(pid)


def _joins(container: Container) -> list[WriteFile]:
    return [WriteFile(write.path, write.value.encode()) for write in container.group.joins]


def _completed(process: oci.Process, way: Way) -> oci.Process:
    """Add the caller's variables, and give a terminal whose size is left open that of the caller's."""
    own_size = process.console_size or (way.size if process.terminal else None)
    return msgspec.structs.replace(process, env=(*process.env, *way.variables), console_size=own_size)


def _mount_of(path: Path) -> str:
    """Find the mount that a path lies on."""
    return str(next(parent for parent in (path, *path.parents) if os.path.ismount(parent)))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
