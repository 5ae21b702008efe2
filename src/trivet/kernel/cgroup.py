"""Control groups: version 1, version 2 and the hybrid of both behind one face.

A `Layout` says where which controller is mounted; a `Group` is one path below all of them. What has
to be written is computed as data (`writes`), so that a plan can show it. Whichever hierarchy is
mounted as version 2 is joined as well, even without controllers: it kills and freezes atomically.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Protocol

import msgspec

from trivet.kernel import cgroup_v1, cgroup_v2
from trivet.kernel.cgroup_record import Hierarchy, Resources, Usage, Write, read

NEEDED = (
    *("memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "devices", "freezer"),
    *("hugetlb", "net_cls", "net_prio", "rdma"),
)
_DELEGATE = "/sys/kernel/cgroup/delegate"
_DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


class Layout(msgspec.Struct, frozen=True):
    """The mounted hierarchies that we use."""

    hierarchies: tuple[Hierarchy, ...]

    @property
    def mode(self) -> str:
        """Name the arrangement: "v1", "v2" or "hybrid"."""
        versions = {hierarchy.version for hierarchy in self.hierarchies}
        return "hybrid" if len(versions) > 1 else f"v{min(versions, default=2)}"


def detect(mountinfo: str | None = None) -> Layout:
    """Read the layout from /proc/self/mountinfo (or the text given)."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    found: dict[str, Hierarchy] = {}
    for line in text.splitlines():
        hierarchy = _hierarchy(line)
        if hierarchy is not None:
            found.setdefault(hierarchy.key, hierarchy)
    return Layout(tuple(sorted(found.values(), key=lambda hierarchy: -hierarchy.version)))


def _hierarchy(line: str) -> Hierarchy | None:
    before, _, after = line.partition(" - ")
    fields, tail = before.split(), after.split()
    if len(tail) < 3 or len(fields) < 5:
        return None
    mount = fields[4].encode().decode("unicode_escape")
    match tail[0]:
        case "cgroup2":
            return Hierarchy(version=2, mount=mount, controllers=cgroup_v2.controllers(mount))
        case "cgroup":
            words = tail[2].split(",")
            controllers = tuple(word for word in words if word in NEEDED)
            name = next((word for word in words if word.startswith("name=")), "")
            return (
                Hierarchy(version=1, mount=mount, controllers=controllers, name=name) if controllers or name else None
            )
        case _:
            return None


def own_path() -> str:
    """Read where this process is in the version 2 hierarchy, "" for its root and where there is none."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), "")


def delegated(layout: Layout, path: str, *, moved: bool = False) -> Layout:
    """Keep the hierarchies in which this process may make `path`, with the controllers it would have there.

    `moved` tells that somebody with more rights moves processes into it.
    """
    found = []
    for hierarchy in layout.hierarchies:
        place = Path(f"{hierarchy.mount}/{path}")
        nearest = next(parent for parent in (place, *place.parents) if parent.is_dir())
        if not _writable(nearest):
            continue
        if hierarchy.version == 2:
            hierarchy = msgspec.structs.replace(hierarchy, controllers=cgroup_v2.controllers(str(nearest)))
        if hierarchy.version == 2 and not moved:
            # Whoever moves a process needs the group above both its old and its new one ("Delegation Containment").
            common = Path(os.path.commonpath([nearest, f"{hierarchy.mount}/{own_path()}"]))
            if not _writable(common / "cgroup.procs"):
                continue
        found.append(hierarchy)
    return Layout(tuple(found))


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=True)


class Mechanism(Protocol):
    """What differs between the versions, for one directory of one hierarchy."""

    def make(self, hierarchy: Hierarchy, path: str) -> None: ...
    def writes(self, controllers: tuple[str, ...], resources: Resources) -> list[tuple[str, str]]: ...
    def join(self, directory: str) -> tuple[Write, ...]: ...
    def usage(self, directory: str, controllers: tuple[str, ...]) -> Usage: ...
    def freeze(self, directory: str, frozen: bool) -> None: ...
    def frozen(self, directory: str) -> bool: ...
    def kill(self, directory: str) -> None: ...


_MECHANISM: dict[int, Mechanism] = {1: cgroup_v1.Version1(), 2: cgroup_v2.Version2()}


class Group:
    """One group: the same `path` below every hierarchy of `layout`."""

    def __init__(self, layout: Layout, path: str) -> None:
        self.layout = layout
        self.path = path.strip("/")
        if not self.path:  # removing the root group would take everybody else's along
            raise ValueError("a control group of our own has a name")

    @cached_property
    def _places(self) -> tuple[tuple[Hierarchy, Mechanism, str], ...]:
        return tuple((h, _MECHANISM[h.version], f"{h.mount}/{self.path}") for h in self.layout.hierarchies)

    @property
    def directories(self) -> tuple[str, ...]:
        """List the group's directories."""
        return tuple(directory for _, _, directory in self._places)

    @property
    def unified(self) -> str:
        """Give the version 2 directory, "" when there is none; clone3 puts a child straight into it."""
        return next((directory for h, _, directory in self._places if h.version == 2), "")

    def beside(self, pid: int) -> str:
        """Give the version 2 directory for a further process: that of `pid` once controllers were handed down.

        Only leaves may hold processes then (cgroups(7), "no internal processes"): systemd in a container does so.
        """
        try:
            if not Path(self.unified, "cgroup.subtree_control").read_text().strip():
                return self.unified
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except OSError:
            return self.unified
        path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
        below = path.removeprefix(f"{self.path}/")
        return self.unified if below == path else f"{self.unified}/{below}"

    @property
    def reap(self) -> tuple[str, ...]:
        """List what a monitor watches: where the processes are listed, and where an out-of-memory kill is counted."""
        wanted = [d for h, _, d in self._places if h.version == 2 or "memory" in h.controllers]
        return tuple(wanted) or self.directories[:1]

    @property
    def joins(self) -> tuple[Write, ...]:
        """List what a task writes to join by itself.

        The pid is 0 and, on version 1, the file is `tasks`: every other form waits for an RCU grace period (5-12 ms).
        """
        return tuple(write for _, mechanism, directory in self._places for write in mechanism.join(directory))

    def add(self, pid: int) -> None:
        """Move a process here from outside; slower than `joins`."""
        for directory in self.directories:
            Path(directory, "cgroup.procs").write_text(str(pid))

    def create(self, resources: Resources) -> None:
        """Make the group everywhere and set its limits; an existing group is taken over. OSError names the file."""
        for hierarchy, mechanism, _ in self._places:
            mechanism.make(hierarchy, self.path)
        self.apply(resources)

    def give(self, user: int) -> None:
        """Hand the version 2 group to a user, to make groups below it; its limits stay ours (cgroups(7), "Delegation").

        Nothing where version 1 has the controllers: it can't be delegated safely.
        """
        if self.layout.mode == "v2":
            names = Path(_DELEGATE).read_text().split() if Path(_DELEGATE).exists() else _DELEGATED
            os.chown(self.unified, user, -1)
            for path in (Path(self.unified, name) for name in names):
                if path.exists():
                    os.chown(path, user, -1)

    @property
    def moved(self) -> bool:
        """Tell whether processes can't join by themselves, but are moved by `add`."""
        return False

    def settle(self) -> None:
        """Hear that the program is in the group; nothing else has to keep it."""

    def writes(self, resources: Resources) -> list[Write]:
        """Compute what sets these limits."""
        return [
            Write(f"{directory}/{name}", value)
            for hierarchy, mechanism, directory in self._places
            for name, value in mechanism.writes(hierarchy.controllers, resources)
        ]

    def apply(self, resources: Resources) -> None:
        """Set the limits, also of a running group."""
        pending = self.writes(resources)
        # Memory and memory+swap must never cross: which of the two has to go first depends on the direction.
        for attempt in range(2):
            failed = [
                (write, error)
                for path, writes in groupby(pending, key=lambda write: write.path)
                for write, error in _try(path, writes)
            ]
            if failed and attempt:
                raise failed[0][1]
            pending = [write for write, _ in failed]

    def usage(self) -> Usage:
        """Measure; a group that isn't there used nothing."""
        total = Usage()
        for hierarchy, mechanism, directory in self._places:
            if hierarchy.controllers:
                total = total.merge(mechanism.usage(directory, hierarchy.controllers))
        return total

    def processes(self) -> list[int]:
        """List the processes in the group and below it, as pids of our namespace."""
        found: set[int] = set()
        for directory in self.reap:
            for group in _tree(directory):
                found.update(_pids(group))
        return sorted(found)

    def freeze(self, frozen: bool) -> None:
        """Freeze or thaw all processes and wait until it is so. Raises TimeoutError; then nobody stays frozen.

        Who is frozen for a moment notices each millisecond that is waited too long: it is looked often.
        """
        mechanism, directory = self._freezer
        mechanism.freeze(directory, frozen)
        what = f"{directory} does not {'freeze' if frozen else 'thaw'}"
        try:
            _until(lambda: mechanism.frozen(directory) == frozen, what, longest=0.001)
        except TimeoutError:
            mechanism.freeze(directory, False)
            raise

    def frozen(self) -> bool:
        """Tell whether the group is frozen."""
        mechanism, directory = self._freezer
        return mechanism.frozen(directory)

    @property
    def _freezer(self) -> tuple[Mechanism, str]:
        places = [(m, d) for h, m, d in self._places if "freezer" in h.controllers or h.version == 2]
        if not places:
            raise FileNotFoundError(errno.ENOENT, "no freezer controller is mounted", self.path)
        return places[0]

    def kill(self) -> None:
        """Kill every process in the group, also frozen ones, and wait until none is left. Raises TimeoutError."""
        if self.frozen():
            self._freezer[0].freeze(self._freezer[1], False)
        _until(self._kill_round, f"processes in {self.path} do not die")

    def _kill_round(self) -> bool:
        for _, mechanism, directory in self._places:
            for group in _tree(directory):
                mechanism.kill(group)
        return not self.processes()

    def vanish(self) -> bool:
        """Remove the group if nobody is in it, which needs no look; tells whether it is gone everywhere.

        A group that has no directory tells nothing of who is in it.
        """
        if not self.directories:
            return False
        try:
            gone = [_rmdir(directory) for directory in self.directories]  # all of them, whatever the first says
            return all(gone)
        except OSError:  # ENOTEMPTY of groups below it, and the like: `kill` and `remove` say what
            return False

    def remove(self) -> None:
        """Remove the group and those below it; idempotent. EBUSY is waited out: a dead task leaves a moment later."""
        for directory in self.directories:
            for group in reversed(list(_tree(directory))):
                _until(lambda group=group: _rmdir(group), f"{group} stays busy")  # type: ignore[misc]


def _tree(directory: str) -> Iterator[str]:
    """Walk a group and those below it, parents first."""
    try:
        if os.stat(directory).st_nlink == 2:  # nothing below it, and its many files needn't be looked at
            yield directory
            return
    except FileNotFoundError:
        return
    for path, names, _ in os.walk(directory):
        yield path
        names.sort()


def _pids(group: str) -> list[int]:
    try:
        return [int(line) for line in read(f"{group}/cgroup.procs").split()]
    except FileNotFoundError:
        return []


def _try(path: str, writes: Iterable[Write]) -> Iterator[tuple[Write, OSError]]:
    """Write values into one file, each by a write(2) of its own; give those that failed."""
    descriptor = -1
    try:
        for write in writes:
            try:
                if descriptor < 0:
                    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                os.write(descriptor, write.value.encode())
            except OSError as error:
                error.filename = path
                yield write, error
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _rmdir(group: str) -> bool:
    try:
        os.rmdir(group)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def _until(done: Callable[[], bool], complaint: str, seconds: float = 5.0, longest: float = 0.05) -> None:
    deadline = time.monotonic() + seconds
    pause = 0.0005
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, complaint)
        time.sleep(pause)
        pause = min(pause * 2, longest)
