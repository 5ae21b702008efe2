"""Saving a container whose program runs, with what it has in memory, and letting it go on from there: CRIU does it.

place/upper         what it had written
place/images/       CRIU's, and what the standard streams were
place/mounts.json   what was mounted in it

CRIU makes anew what is the program's: processes, memory, its namespaces but two. The network and the control groups are
the ones that a start gives, and CRIU runs in them: from within a user namespace of its own making it could not join
them. What is mounted from outside is made ready beforehand, as for a start, in a mount namespace that ends with CRIU:

STAGE/root          the root
STAGE/N             the Nth mount from outside
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from trivet.base.error import Corrupt, NotFound, Unavailable, Unsupported
from trivet.isolation import specification
from trivet.isolation.driver import Saved
from trivet.isolation.local import COMMON, show_root
from trivet.isolation.owner import making, own
from trivet.isolation.plan import Plan
from trivet.kernel import procfs
from trivet.kernel.cgroup import Group
from trivet.launch.channel import Channel
from trivet.launch.operation import (
    Bind,
    Directory,
    Exec,
    Fork,
    JoinPath,
    LinkUp,
    Monitor,
    Mount,
    Operation,
    Propagation,
    Revive,
    Spawn,
    Sysctl,
    Unshare,
    WriteFile,
)
from trivet.launch.operation import Root as RootOperation
from trivet.launch.spawn import LaunchError, run, spawn
from trivet.oci import runtime as oci
from trivet.oci.runtime import Linux, Spec
from trivet.runtime import checkpoint, criu, device, devicefilter, image, mount, namespace, restore
from trivet.runtime.setting import Setting

UPPER, IMAGES, MOUNTS, LOG = "upper", "images", "mounts.json", "restore.log"
PATIENCE = 900.0
# Whatever the machine's directories hold is seen by nobody who needs it while CRIU runs.
_STAGES = ("/mnt", "/srv", "/media", "/opt", "/tmp")
_SAVED = ("proc", "tmpfs", "devpts", "mqueue")
"""File systems that CRIU fills again, where they are the container's own."""
_NOTHING = 6
_STREAMS = 7
_SCRIPT = 'exec 6<>/dev/null 7<&0 8>&1 9>&2 <&6 >&6 2>&6; exec "$@"'
_SINGLE = {"rbind": "bind", "ridmap": "idmap"}
_FLAGS = ("ro", "nosuid", "nodev", "noexec")


class CannotFreeze(Unsupported):
    """A container whose memory can't be saved."""

    def __init__(self, plan: Plan, cause: str) -> None:
        super().__init__(
            f"cannot save the memory of instance {plan.name}: {cause}",
            hint=f"trivet stop {plan.name} first; without its memory it can be",
        )


class FrozenOtherwise(Unsupported):
    """A container that isn't what it was when it was saved."""

    def __init__(self, plan: Plan, what: str) -> None:
        super().__init__(f"cannot let instance {plan.name} go on from what was saved: {what} then")


class Place(msgspec.Struct, frozen=True):
    """A mount that a container has: where, of which kind, and what it forbids."""

    target: str
    kind: str
    flags: tuple[str, ...]


def check(plan: Plan) -> None:
    """Refuse what can't be saved. Raises `CannotFreeze`, and `CriuMissing`."""
    if plan.program.terminal:
        raise CannotFreeze(plan, "its program has a terminal")
    if plan.init:
        raise CannotFreeze(plan, "its first process is trivet's own init (--init)")
    if plan.root.read_only:
        raise CannotFreeze(plan, "its root is read-only")  # CRIU has to make a directory there, for a moment
    if plan.shared:
        raise CannotFreeze(plan, f"it has another's {plan.shared[0].kind} namespace")
    if plan.owner and plan.owner.borrowed:
        raise CannotFreeze(plan, "it has another's users")
    if plan.owner and any(each.kind == "host" for each in plan.attachments):
        raise CannotFreeze(plan, "it has the host's network, but not its users (run it with --userns host)")
    if plan.owner and (rights := {"CAP_NET_ADMIN", "CAP_NET_RAW"} & set(plan.security.capabilities)):
        # Its network would belong to users that aren't its own any more, so that these would be worth nothing.
        raise CannotFreeze(plan, f"it has {min(rights)} over its network (run it with --userns host)")
    criu.find(None)


def save(
    plan: Plan, spec: Spec, pid: int, group: Group, place: Path, copy: Callable[[], None], *, go_on: bool
) -> float:
    """Save processes and, by `copy`, what they wrote, into a new directory; seconds they stood still.

    Unless they shall `go_on` they stand still afterwards, too. When it fails they go on. Raises what `check` does.
    """
    check(plan)
    if stranger := _stranger(group.processes(), pid):
        raise CannotFreeze(plan, f"process {stranger} in it was added by exec")
    place.mkdir(mode=0o700)
    images = place / IMAGES
    images.mkdir()
    images.chmod(0o755)  # a mapped root looks into it; nobody else gets as far as here
    began = time.monotonic()
    with contextlib.ExitStack() as undo:
        group.freeze(True)
        undo.callback(_thaw, group)
        copy()
        keys = [checkpoint.stream_key(pid, number) for number in range(3)]
        image.write_descriptors(images, keys)
        (place / MOUNTS).write_bytes(msgspec.json.encode(_mounted(pid)))
        _dump(plan, spec, pid, group, images, keys)
        if not go_on:
            undo.pop_all()
    return time.monotonic() - began


def _stranger(members: list[int], pid: int) -> int | None:
    for each in members:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            if each != pid and procfs.stat(each)[1][1] not in members:
                return each
    return None


def _thaw(group: Group) -> None:
    with contextlib.suppress(OSError):  # somebody has ended it, and it is being removed
        group.freeze(False)


def _dump(plan: Plan, spec: Spec, pid: int, group: Group, images: Path, keys: list[str]) -> None:
    outside = sorted(_outside(_mounted(pid), spec))
    files = sorted({key.removesuffix(image.NOTHING) for key in keys if key.startswith("file[")})
    argv = [
        *(criu.find(None), "dump", "-t", str(pid), "-D", str(images), "-W", str(images), "-o", "dump.log", "-v4"),
        *("--root", "/", "--manage-cgroups=ignore", *_words(plan)),
        *(word for target in outside for word in ("--external", f"mnt[{target}]:{target}")),
        *(word for key in files for word in ("--external", key)),
        *("--freeze-cgroup", checkpoint.freezer(group)),
        "--leave-running",  # whoever is killed before the images are known to somebody is lost
    ]
    done = run([JoinPath(f"/proc/{pid}/ns/net", namespace.FLAGS["network"]), Spawn(), Exec(tuple(argv), _ENVIRONMENT)])
    if done.code:
        said = criu.cause(images / "dump.log") or f"exit code {done.code}"
        raise CannotFreeze(plan, f"criu says: {said}")


def _words(plan: Plan) -> tuple[str, ...]:
    """Say what CRIU is to save that it doesn't by itself; only who has the host's users keeps its connections.

    A connection can be set up in the middle only by the network's own root (tcp(7), TCP_REPAIR), and with users of its
    own a container's network belongs to those it was started with.
    """
    connections = ("--tcp-close",) if plan.owner else ("--tcp-established", "--network-lock", "nftables")
    return (*connections, "--file-locks", "--ext-unix-sk")


_ENVIRONMENT = (f"PATH={os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}",)


@contextlib.contextmanager
def opened(place: Path) -> Iterator[Saved]:
    """Look at what was saved. Raises `Corrupt`, `ImagesRefused`."""
    try:
        image.check(place / IMAGES)
    except NotFound as error:
        raise Corrupt(f"there is no memory in {place}") from error
    yield Saved(memory=-1, state=-1, key="", place=str(place))


def thaw(plan: Plan, spec: Spec, group: Group, saved: Saved, was: Plan) -> Channel:
    """Bring the processes back as a monitor's; they go on when this returns, which waits for GO all the same.

    Raises `FrozenOtherwise`, `CriuMissing`, `CriuFailed`, and `RestoredWrong` for more than the plan gives.
    """
    first, then = (each.owner.first if each.owner else 0 for each in (plan, was))
    if first != then:
        raise FrozenOtherwise(plan, "its users had other ids")
    place = Path(saved.place)
    steps = operations(plan, spec, group, place, criu.find(None))
    try:
        channel = spawn(steps, timeout=PATIENCE)
    except LaunchError as error:
        log = place / LOG
        raise criu.CriuFailed(f"restore instance {plan.name}", criu.cause(log) or error.text, log) from error
    try:
        _continue(plan, spec, group, place)
    except BaseException:
        channel.close()
        raise
    return channel


def _continue(plan: Plan, spec: Spec, group: Group, place: Path) -> None:
    members = group.processes()
    pid = int(Path(plan.directory, "revived").read_text())
    for member in members:
        restore.check_process(plan.name, spec, group, member)
    now = {each.target: each for each in _mounted(pid)}
    for before in msgspec.json.decode((place / MOUNTS).read_bytes(), type=list[Place]):
        found = now.get(before.target)
        if found is None or not set(before.flags) <= set(found.flags):
            raise restore.RestoredWrong(plan.name, f"{before.target} is mounted otherwise")
    for member in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGCONT)


def operations(plan: Plan, spec: Spec, group: Group, place: Path, program: str) -> list[Operation]:
    """Compute the plan that has CRIU bring a container back from a directory."""
    linux = spec.linux or Linux()
    images, revived = place / IMAGES, f"{plan.directory}/revived"
    stage = _stage(program, str(place), plan.directory, plan.root.upper, *plan.root.lowers)
    network = next((each for each in linux.namespaces if each.type == "network"), None)
    setting = Setting(root="/", hierarchies=group.layout.hierarchies, unified=group.unified, group=plan.cgroup)
    maps = mount.Maps(plan.owner.path, plan.owner.path, plan.owner.first) if plan.owner else mount.Maps()
    outside = _outside(msgspec.json.decode((place / MOUNTS).read_bytes(), type=list[Place]), spec)
    shown, first = plan.owner is not None, (show_root(plan.root, COMMON),)
    mounts = mount.operations(_flat(spec, outside), group.layout.hierarchies, own=maps, first=first, shown=shown)
    parts = _parts(mounts.steps[1:], stage)
    sources = {target: _source(plan, spec, target, parts) for target in sorted(outside)}
    keys = image.read_descriptors(images)
    argv = [
        *("/bin/sh", "-c", _SCRIPT, "sh", program, "restore", "-D", str(images), "-W", str(place), "-o", LOG, "-v4"),
        *("--restore-detached", "--restore-sibling", "--leave-stopped", "--pidfile", revived),
        *("--root", f"{stage}/root", "--manage-cgroups=ignore", *_words(plan)),
        *(word for target, source in sources.items() for word in ("--external", f"mnt[{target}]:{source}")),
        *(word for each in _inherited(keys) for word in ("--inherit-fd", each)),
    ]
    owner = own(plan)
    return [
        Monitor(plan.directory, log=plan.log.path, log_size=plan.log.size, log_files=plan.log.files, reap=group.reap),
        Revive(revived),
        *([making(owner)] if owner else []),
        *devicefilter.operations(linux.resources.devices if linux.resources else (), setting),
        Fork(),
        *mounts.trees,
        Spawn(
            flags=namespace.FLAGS["mount"] | (namespace.FLAGS["network"] if network and not network.path else 0),
            stdin=int(plan.program.stdin),
            cgroup=group.unified,
            owner=plan.owner.first if plan.owner else 0,
        ),
        *(WriteFile(write.path, write.value.encode()) for write in group.joins),
        *([JoinPath(network.path, namespace.FLAGS["network"])] if network and network.path else []),
        Unshare(namespace.FLAGS["cgroup"]),
        Propagation("/", mount.PROPAGATION["rslave"]),
        RootOperation("/"),
        *([LinkUp("lo")] if network else []),
        *specification.network(plan.attachments),
        *(
            Sysctl(key.replace(".", "/"), value)
            for key, value in sorted(linux.sysctl.items())
            if key.startswith("net.")
        ),
        Mount("tmpfs", "tmpfs", stage, options=("mode=755",), make=0, host=1),
        Directory(f"{stage}/root", host=1),
        msgspec.structs.replace(mounts.steps[0], target=f"{stage}/root"),
        *(part for part, _ in parts.values()),
        Exec(tuple(argv), _ENVIRONMENT),
    ]


def _stage(*needed: str) -> str:
    for stage in _STAGES:
        if Path(stage).is_dir() and not any(path.startswith(f"{stage}/") for path in needed):
            return stage
    raise Unavailable(f"a restore needs one of the directories {', '.join(_STAGES)} for a moment, but all are in use")


def _flat(spec: Spec, outside: set[str]) -> Iterator[oci.Mount]:
    """Take a bind of a tree apart: what is mounted within would be in the way, as CRIU shows one mount at a time."""
    known = {posixpath.normpath(each.destination) for each in spec.mounts}
    for each in spec.mounts:
        if not mount.options(each).bind:
            yield each
            continue
        top, words = posixpath.normpath(each.destination), tuple(_SINGLE.get(word, word) for word in each.options)
        within = [target for target in sorted(outside - known) if target.startswith(f"{top}/")]
        yield msgspec.structs.replace(each, options=words)
        deep = tuple(word for word in words if word not in mount.SHALLOW)
        for target in within:
            source = f"{each.source}{target.removeprefix(top)}"
            yield msgspec.structs.replace(each, destination=target, source=source, options=deep)


def _parts(steps: list[Operation], stage: str) -> dict[str, tuple[Operation, str]]:
    """Put what comes from outside beside one another, by where it belongs."""
    parts: dict[str, tuple[Operation, str]] = {}
    for number, step in enumerate(steps):
        if isinstance(step, Bind) or (isinstance(step, Mount) and step.fstype not in _SAVED):
            place = f"{stage}/{number}"
            make = 3 if isinstance(step, Bind) else 1
            parts[step.target] = (msgspec.structs.replace(step, target=place, host=1, make=make), place)
    return parts


def _source(plan: Plan, spec: Spec, target: str, parts: dict[str, tuple[Operation, str]]) -> str:
    """Tell where what is mounted from outside comes from now: by the plan, whatever it was then."""
    if target in {each.path for each in device.DEFAULT}:
        return target
    if spec.linux and target in spec.linux.masked_paths:
        return "/dev/null"
    for above in sorted(parts, key=len, reverse=True):
        if target == above or target.startswith(f"{above}/"):
            return posixpath.normpath(f"{parts[above][1]}/{target.removeprefix(above)}")
    raise FrozenOtherwise(plan, f"something was mounted at {target}")


def _inherited(keys: list[str]) -> Iterator[str]:
    for number, key in enumerate(keys):
        if key and key not in keys[:number]:
            descriptor = _NOTHING if key.endswith(image.NOTHING) else _STREAMS + number
            yield f"fd[{descriptor}]:{key.removesuffix(image.NOTHING)}"


def _outside(mounted: list[Place], spec: Spec) -> set[str]:
    """Name what isn't the container's own: what is bound there, or of a kind that CRIU can't fill again."""
    bound = [posixpath.normpath(each.destination) for each in spec.mounts if mount.options(each).bind]
    return {
        each.target
        for each in mounted
        if each.target != "/"
        and (
            each.kind not in _SAVED or any(each.target == path or each.target.startswith(f"{path}/") for path in bound)
        )
    }


def _mounted(pid: int) -> list[Place]:
    found = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        own_words, _, other = line.partition(" - ")
        words = own_words.split()
        target = words[4].encode().decode("unicode_escape")
        flags = tuple(each for each in words[5].split(",") if each in _FLAGS)
        found.append(Place(target, other.split()[0], flags))
    return found
