"""Saving a running container's processes with CRIU, and what can't be saved."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from trivet.base.error import Unavailable, Unsupported
from trivet.kernel.cgroup import Group
from trivet.oci import runtime as oci
from trivet.runtime import criu, image, mount, namespace
from trivet.runtime.container import Container

# File systems that CRIU saves or mounts anew; whatever else is mounted comes from outside.
_SAVED = ("proc", "sysfs", "tmpfs", "devpts", "mqueue")
NETWORK = "extRootNetNS"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What `checkpoint` and `restore` are both told, by runc's words."""

    program: str | None = None
    images: Path
    work: Path | None = None
    tcp: bool = False
    sockets: bool = False
    job: bool = False
    locks: bool = False
    groups: str = "soft"
    empty_network: bool = False
    dedup: bool = False

    def words(self) -> list[str]:
        """Spell them for CRIU. Locks of connections are nftables', which trivet needs anyway."""
        flags = {
            "--tcp-established": self.tcp,
            "--ext-unix-sk": self.sockets,
            "--shell-job": self.job,
            "--file-locks": self.locks,
            "--auto-dedup": self.dedup,
        }
        network = ["--network-lock", "nftables"] if self.tcp else []
        empty = ["--empty-ns", "net"] if self.empty_network else []
        return [
            *(flag for flag, asked in flags.items() if asked),
            *network,
            *empty,
            f"--manage-cgroups={self.groups}",
        ]


def check(spec: oci.Spec) -> None:
    """Refuse what can't be saved and brought back. Raises `Unsupported`."""
    linux = spec.linux or oci.Linux()
    if spec.process and spec.process.terminal:
        raise Unsupported("a container with a terminal can't be checkpointed yet - at `$.process.terminal`")
    if namespace.has(linux.namespaces, "user"):
        raise Unsupported("a container with a user namespace can't be checkpointed yet - at `$.linux.namespaces`")
    if not namespace.has(linux.namespaces, "pid", new=True):
        raise Unsupported("only a container with a new pid namespace can be checkpointed - at `$.linux.namespaces`")
    for one in linux.namespaces:
        if one.path and one.type != "network":
            raise Unsupported(f"a container in another's {one.type} namespace can't be checkpointed yet")


def dump(container: Container, options: Options, *, leave: bool, pre: bool = False, parent: str = "") -> None:
    """Write the images; the program has ended afterwards unless it is left running, or it was a `pre`-dump.

    Raises `CriuMissing`, `CriuFailed`, `Unsupported`, `ImagesRefused`, and `Conflict` unless the container runs
    or is paused, as containerd has it meanwhile.
    """
    process = container.require("running", "paused")
    check(container.kept.spec)
    program = criu.find(options.program)
    images = image.make(options.images)
    if parent:
        image.check_parent(images, parent)
    if (pre or parent) and not criu.tracks_memory(program):
        raise Unavailable("this kernel can't track memory (CONFIG_MEM_SOFT_DIRTY), which pre-dumps need")
    work = options.work.absolute() if options.work else images
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    argv = [
        *(program, "pre-dump" if pre else "dump", "-t", str(process.pid)),
        *("-D", str(images), "-W", str(work), "-o", "dump.log", "-v4"),
        *("--root", container.kept.root),
        *options.words(),
        *_externals(container, process.pid),
        *(["--leave-running"] if leave and not pre else []),
        *(["--prev-images-dir", parent, "--track-mem"] if parent else []),
    ]
    keys = [stream_key(process.pid, descriptor) for descriptor in range(3)]
    for key in sorted({key.removesuffix(image.NOTHING) for key in keys if key.startswith("file[")}):
        argv += ["--external", key]
    criu.run(argv, f"save container {container.kept.id}", work / "dump.log")
    if not pre:
        image.write_descriptors(images, keys)


def _externals(container: Container, pid: int) -> Iterator[str]:
    """Name what isn't the container's own: mounts from outside, a network namespace by path."""
    for target in sorted(_foreign(pid, container.kept.spec)):
        yield from ("--external", f"mnt[{target}]:{target}")
    if _joined_network(container.linux):
        yield from ("--external", f"net[{Path(f'/proc/{pid}/ns/net').stat().st_ino}]:{NETWORK}")
    yield from ("--freeze-cgroup", freezer(container.group))


def freezer(group: Group) -> str:
    """Name the directory by which CRIU can freeze a group."""
    return next(
        f"{hierarchy.mount}/{group.path}"
        for hierarchy in group.layout.hierarchies
        if "freezer" in hierarchy.controllers or hierarchy.version == 2
    )


def _joined_network(linux: oci.Linux) -> str:
    return next((one.path for one in linux.namespaces if one.type == "network"), "")


def _foreign(pid: int, spec: oci.Spec) -> set[str]:
    """Name what comes from outside; what is bound does so even where it is of a kind that CRIU would save a copy of."""
    bound = {posixpath.normpath(each.destination) for each in spec.mounts if mount.options(each).bind}
    found = set()
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        own, _, other = line.partition(" - ")
        target = own.split()[4]
        if target != "/" and (other.split()[0] not in _SAVED or target in bound):
            found.add(target.encode().decode("unicode_escape"))
    return found


def stream_key(pid: int, descriptor: int) -> str:
    """Name a stream as CRIU does; "" for one that is closed, or that CRIU knows by itself."""
    place = Path(f"/proc/{pid}/fd/{descriptor}")
    with suppress(FileNotFoundError):
        target = str(place.readlink())
        if target.startswith("pipe:["):
            return target
        if target.startswith("/"):
            lines = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text().splitlines()
            mount = next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
            if not _has_mount(pid, mount):
                nothing = image.NOTHING if target == "/dev/null" else ""
                return f"file[{mount:x}:{place.stat().st_ino:x}]{nothing}"
    return ""


def _has_mount(pid: int, number: int) -> bool:
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return any(line.split(" ", 1)[0] == str(number) for line in lines)
