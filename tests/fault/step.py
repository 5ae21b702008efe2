"""Killing an engine before a chosen step of a verb (`trivet.daemon.fault`), and looking at all that is there.

plain = what a verb that nobody disturbed leaves, and how many steps it has
for some steps: begin the verb → the engine dies there → the next engine → done if it wasn't → the same is left
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tests.conftest import Daemon

from trivet.base.error import TrivetError

State = dict[str, Any]
PATIENCE = 30.0
MANY = 8
_ID = re.compile(r"[0-9a-f]{12,64}")


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """A command, what precedes it, and what takes its result away again; `done` tells whether it was carried out."""

    words: Sequence[str]
    before: Sequence[Sequence[str]] = ()
    done: Callable[[Daemon], bool]
    after: Sequence[Sequence[str]]


class Killer:
    """An engine that dies when it is told to. `control` is the file that says where."""

    def __init__(self, engine: Daemon, control: Path) -> None:
        self.engine = engine
        self.control = control
        self.log = Path(f"{control}.log")

    def plain(self, verb: Verb) -> tuple[list[str], State]:
        """Carry a verb out undisturbed; return the steps it had, and what was there then."""
        self._all(verb.before)
        self.log.write_text("")
        self.control.write_text("0")
        self.engine.ok(*verb.words)
        self.control.unlink()
        steps = self.log.read_text().splitlines()
        left = settled(self.engine)
        self._all(verb.after)
        return steps, left

    def killed(self, verb: Verb, step: int) -> State:
        """Carry a verb out by an engine that dies before a step, and the next one; return what is there then."""
        self._all(verb.before)
        self.log.write_text("")
        self.control.write_text(str(step))
        begun = self.engine.begin(*verb.words)
        begun.wait(120)
        self.control.unlink()
        self.engine.kill()
        self.engine.start()
        found = self.engine.client.system.check()
        assert found == [], f"{step}: {found} {self.last()}"
        if not verb.done(self.engine):
            self.engine.ok(*verb.words)
        left = settled(self.engine)
        self._all(verb.after)
        return left

    def last(self) -> str:
        """Tell the last step that was counted."""
        return (self.log.read_text().splitlines() or [""])[-1]

    def _all(self, commands: Sequence[Sequence[str]]) -> None:
        for words in commands:
            self.engine.ok(*words)


def settled(engine: Daemon) -> State:
    """Look until twice the same was there: some things are tidied away a moment later."""
    deadline, before = time.monotonic() + PATIENCE, look(engine)
    while time.monotonic() < deadline:
        time.sleep(0.3)
        now = look(engine)
        if now == before:
            return now
        before = now
    return before


def look(engine: Daemon) -> State:
    """Everything an engine has and shows, without the ids that are chosen anew each time."""
    client, root = engine.client, engine.root
    instances, snapshots = client.instances.list(all=True), client.volumes.snapshots()
    return {
        "instances": sorted((each.name, each.status, each.exit_code) for each in instances),
        "interfaces": sorted((each.name, use.network) for each in instances for use in each.networks),
        "images": sorted((each.id, *sorted(each.names)) for each in client.images.list()),
        "volumes": sorted((each.name, _tree(Path(each.mountpoint))) for each in client.volumes.list()),
        "snapshots": sorted((each.volume, each.name) for each in snapshots),
        "networks": sorted((each.name, *sorted(each.members)) for each in client.networks.list()),
        "ports": sum(len(_entries(Path(f"/sys/class/net/{each.interface}/brif"))) for each in client.networks.list()),
        # A snapshot's manifest tells when it was taken.
        "blobs": sorted(set(_entries(root / "content/blobs/sha256")) - {each.digest[7:] for each in snapshots}),
        "layers": sorted(f"{path.parent.name}/{path.name}" for path in root.glob("snapshot/overlay/[ls][at]*/*")),
        "written": len(_entries(root / "snapshot/overlay/instance")),
        "rubbish": sorted(str(path.relative_to(root)) for path in _rubbish(root)),
        "kept": len(_entries(root / "instance")),
        "running": [len(_entries(engine.run / name)) for name in ("i", "netns")],
        "mounts": sorted(_ID.sub("#", line) for line in _mounts(f"{root}/") if "/layer/" not in line),
        "groups": sum(1 for _ in Path("/sys/fs/cgroup/pids/trivet", client.system.info().id[:8]).rglob("*/")),
    }


def _tree(directory: Path) -> list[tuple[str, str]]:
    found = directory.rglob("*")
    return sorted((str(path.relative_to(directory)), path.read_text() if path.is_file() else "") for path in found)


def _entries(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def _rubbish(root: Path) -> Iterator[Path]:
    for pattern in (
        "snapshot/*/making/*",
        "content/ingest/*",
        "content/scratch/*",
        "content/partial/*",
        "disk/making/*",
        "tmp/*",
    ):
        yield from root.glob(pattern)


def _mounts(prefix: str) -> list[str]:
    words = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [word[1].removeprefix(prefix) for word in words if word[1].startswith(prefix)]


def there(name: str, *statuses: str) -> Callable[[Daemon], bool]:
    """Tell whether an instance is there, perhaps with one of these statuses."""

    def done(engine: Daemon) -> bool:
        found = [each.status for each in engine.client.instances.list(all=True) if each.name == name]
        return bool(found) and (not statuses or found[0] in statuses)

    return done


def has_image(name: str) -> Callable[[Daemon], bool]:
    """Tell whether an image is there under a name."""

    def done(engine: Daemon) -> bool:
        try:
            return bool(engine.client.images.get(name))
        except TrivetError:
            return False

    return done


def distinct(steps: Sequence[str]) -> list[int]:
    """Number the steps, from 1; of more than MANY between like neighbours, as in a tree, three stand for all."""
    words = ["", *(step.split()[1] for step in steps), ""]
    alike: dict[tuple[str, ...], list[int]] = {}
    for number in range(1, len(steps) + 1):
        alike.setdefault(tuple(words[number - 1 : number + 2]), []).append(number)
    rows = (row if len(row) <= MANY else [row[0], row[len(row) // 2], row[-1]] for row in alike.values())
    return sorted(number for row in rows for number in row)


def spread(steps: Sequence[int], most: int, first: int) -> list[int]:
    """Choose at most so many of some steps, evenly, beginning somewhere."""
    apart = max(-(-len(steps) // most), 1)
    return list(steps[first % apart :: apart])
