"""Bringing a container's processes back from images, as a child of ours with our streams.

What the container is comes from the bundle; of the images only the processes do. They are brought back stopped and
looked at before they go on: rights, filter, namespaces, root and control groups have to be what the bundle says.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from trivet.base.error import Denied, Unsupported
from trivet.kernel import capability, cgroup, procfs
from trivet.kernel.cgroup import Group
from trivet.launch import monitor
from trivet.oci import runtime as oci
from trivet.runtime import bundle as bundles
from trivet.runtime import checkpoint, criu, group, hook, image, namespace, resource
from trivet.runtime.checkpoint import Options
from trivet.runtime.container import Container
from trivet.runtime.program import Begun, Way, limits_of

_FILES = {"mount": "mnt", "network": "net"}
# CRIU needs a root that is a mount, and may have it in a mount namespace that ends with it.
_SHOW = ("unshare", "--mount", "--propagation", "slave", "sh", "-c")
_SCRIPT = 'mount --rbind -- "$1" "$2" && shift 2 && exec "$@"'


class RestoredWrong(Denied):
    """Images whose processes have more than the bundle gives them."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"the checkpoint is not one of container {name}: {cause}")


def restore(home: Path, name: str, bundle: Path, way: Way, options: Options) -> tuple[Container, Begun]:
    """Make the container and bring its processes back; they run when this returns. Nothing is left on failure.

    Raises what `checkpoint.dump` does, and `RestoredWrong`.
    """
    made = Container.new(home, name, bundles.read(bundle), rootless=way.rootless, systemd=way.systemd)
    checkpoint.check(made.kept.spec)
    layout = made.group.layout
    if made.kept.group.unit or not any("devices" in one.controllers for one in layout.hierarchies):
        raise Unsupported("containers are restored into control groups of version 1 that no systemd made, so far")
    program = criu.find(options.program)
    images = image.check(options.images)
    keys = image.read_descriptors(images)
    wanted = limits_of(made, way)
    for text in resource.warnings(made.kept.spec):
        way.warn(text)
    with ExitStack() as undo:
        made.expect_free()
        made.claim()
        undo.callback(made.remove, way.warn)
        made.limit(wanted, create=True)
        if (user := group.owner(made.kept.spec)) is not None:
            made.group.give(user)
        _bring_back(made, program, images, keys, options)
        pid = _first(made)
        (made.directory / "pid").write_text(f"{pid} {monitor.start_time(pid)}\n")
        for member in _members(made, pid):
            check_process(name, made.kept.spec, made.group, member, root=made.kept.root)
        for kind, hooks in (("prestart", made.hooks.prestart), ("createRuntime", made.hooks.create_runtime)):
            for one in hooks:
                hook.on_host(kind, one, made.told("creating", pid), made.kept.bundle)
        for member in _members(made, pid):
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGCONT)
        for one in made.hooks.poststart:
            hook.on_host("poststart", one, made.told("running", pid), made.kept.bundle)
        undo.pop_all()
    return made, Begun(pid, None, started=True)


def _bring_back(made: Container, program: str, images: Path, keys: list[str], options: Options) -> None:
    root, work = made.directory / "root", (options.work or made.directory / "criu").absolute()
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    argv = [
        *(*_SHOW, _SCRIPT, "sh", made.kept.root, str(root)),
        *(program, "restore", "-D", str(images), "-W", str(work), "-o", "restore.log", "-v4"),
        *("--restore-detached", "--restore-sibling", "--leave-stopped", "--pidfile", str(made.directory / "criu.pid")),
        *("--root", str(root)),
        *options.words(),
        *_mounts(made),
    ]
    for hierarchy in made.group.layout.hierarchies:
        for controller in hierarchy.controllers or ((hierarchy.name,) if hierarchy.name else ()):
            argv += ["--cgroup-root", f"{controller}:/{made.group.path}"]
    with ExitStack() as given:
        descriptors = []
        for place, key in enumerate(keys):
            if key and key not in keys[:place]:
                nothing = key.endswith(image.NOTHING)
                descriptors.append(_nothing(given) if nothing else _stream(given, place))
                argv += ["--inherit-fd", f"fd[{descriptors[-1]}]:{key.removesuffix(image.NOTHING)}"]
        for one in made.linux.namespaces:
            if one.type == "network" and one.path:
                descriptors.append(_kept(given, os.open(one.path, os.O_RDONLY)))
                argv += ["--inherit-fd", f"fd[{descriptors[-1]}]:{checkpoint.NETWORK}"]
        criu.run(argv, f"restore container {made.kept.id}", work / "restore.log", descriptors=descriptors)


def _kept(stack: ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor


def _stream(stack: ExitStack, number: int) -> int:
    try:
        return _kept(stack, os.dup(number))
    except OSError:
        return _nothing(stack)


def _nothing(stack: ExitStack) -> int:
    return _kept(stack, os.open("/dev/null", os.O_RDWR))


def _mounts(made: Container) -> Iterator[str]:
    """Say where what is mounted from outside comes from: by the bundle, whatever the images say."""
    found: dict[str, str] = {}
    for mount in made.kept.spec.mounts:
        target = os.path.normpath(mount.destination)
        if {"bind", "rbind"} & set(mount.options):
            found[target] = str(Path(made.kept.bundle, mount.source))
        elif mount.type in ("cgroup", "cgroup2"):
            for one in cgroup.detect().hierarchies:
                if one.version == 1:
                    place = ",".join(one.controllers) or one.name.removeprefix("name=")
                    found[f"{target}/{place}"] = f"{one.mount}/{made.group.path}"
    for path in made.linux.masked_paths:
        found.setdefault(path, "/dev/null")
    for target, source in sorted(found.items()):
        yield from ("--external", f"mnt[{target}]:{source}")


def _first(made: Container) -> int:
    path = made.directory / "criu.pid"
    pid = int(path.read_text())
    path.unlink()
    return pid


def _members(made: Container, pid: int) -> list[int]:
    return sorted({*made.group.processes(), *procfs.namespace_members(pid)})


def check_process(name: str, spec: oci.Spec, group: Group, pid: int, *, root: str = "") -> None:
    """Compare one process with what its container is, and with where its root is. Raises `RestoredWrong`."""
    process, linux, place = spec.process or oci.Process(cwd="/"), spec.linux or oci.Linux(), Path("/proc", str(pid))
    lines = (line.partition(":") for line in (place / "status").read_text().splitlines())
    status = {name: value.strip() for name, _, value in lines}
    if status["State"].startswith("Z"):
        return
    allowed = process.capabilities or oci.Capabilities()
    held = {
        one for kind in ("Bnd", "Prm", "Eff", "Inh", "Amb") for one in capability.names(int(status[f"Cap{kind}"], 16))
    }
    wrong = {
        "rights": held <= {*allowed.bounding, *allowed.permitted, *allowed.effective, *allowed.inheritable},
        "no_new_privileges": status["NoNewPrivs"] == "1" or not process.no_new_privileges,
        "system call filter": status["Seccomp"] == "2" or linux.seccomp is None,
        "root directory": not root or (place / "root").samefile(root),
        "control group": pid in group.processes(),
    }
    for kind in namespace.FLAGS:
        same = _namespace(place, kind) == _namespace(Path("/proc/self"), kind)
        wrong[f"{kind} namespace"] = same != namespace.has(linux.namespaces, kind) or kind == "time"
    for what, right in wrong.items():
        if not right:
            raise RestoredWrong(name, f"process {pid} has another {what}")


def _namespace(place: Path, kind: str) -> int:
    return (place / "ns" / _FILES.get(kind, kind)).stat().st_ino
