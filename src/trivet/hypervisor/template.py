"""Templates: guests booted to the idle agent, whose memory and state others begin with instead of booting.

    DIRECTORY/KEY/
    ├── memory   the guest's memory, with holes; copied into a sealed memfd when the first fork asks for it
    ├── sums     checksums of both
    └── state    what the devices were doing, as QEMU's migration stream

KEY is a digest of whatever a fork must have in common with its template: QEMU, kernel, initramfs, board, processor,
memory. The files outlive the engine; the memfds don't, but forks that run keep theirs. What was used last is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from trivet.base.error import TrivetError
from trivet.hypervisor import growth, program, stored
from trivet.hypervisor.device.balloon import Balloon
from trivet.hypervisor.device.board import Slots
from trivet.hypervisor.device.drive import Placeholder
from trivet.hypervisor.device.generation import Generation
from trivet.hypervisor.device.serial import Console, Port
from trivet.hypervisor.machine import Acceleration, Machine, Memory, command_line
from trivet.hypervisor.stored import Template

KEPT = 8  # templates on disk
MEMORY_NAME = "trivet-memory"  # of the file, as others see it in /proc
PORTS = Slots(count=4, kind="port")  # not "slot", which is a property of the port itself
LOADED = 4  # and of those in memory
_STALE = 600.0  # seconds after which what is still being made was given up


class Templates:
    """The templates below one directory, which further engines may use at the same time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._loaded: dict[str, Template] = {}
        self._failed: dict[str, str] = {}
        self._doubted: set[str] = set()
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()  # of what is above; held for moments

    @contextlib.contextmanager
    def use(self, machine: Machine, patience: float) -> Iterator[Template]:
        """Find or make the template for a machine and hold it meanwhile; made, it takes as long as a boot.

        Raises what went wrong when it was made; the same again, at once, for as long as this object lives.
        """
        shape = shape_of(machine)
        key = digest(shape)
        with self._guard(key):
            held = self._held(key) or self._keep(key, self._load(key) or self._make(key, shape, patience))
        try:
            yield held
        finally:
            held.close()

    def forget(self, machine: Machine, reason: str) -> None:
        """Drop a template that a machine could not begin with; the second one in a row is not made any more."""
        key = digest(shape_of(machine))
        with self._guard(key), self._lock:
            if key in self._loaded:
                self._loaded.pop(key).close()
            shutil.rmtree(self._directory / key, ignore_errors=True)
            if key in self._doubted:
                self._failed[key] = reason
            self._doubted.add(key)

    def unload(self, machine: Machine) -> None:
        """Let go of a template in memory that hardly anybody will need; who does has it from the disk."""
        key = digest(shape_of(machine))
        with self._lock:
            if key in self._loaded and self._directory.joinpath(key).exists():
                self._loaded.pop(key).close()

    def usage(self) -> tuple[int, int]:
        """Count the templates on disk, and the bytes they take."""
        places = self._places()
        return len(places), sum(_size(place) for place in places)

    def prune(self, *, dry_run: bool = False) -> tuple[list[str], int]:
        """Remove all; forks that run go on. Names, and bytes freed."""
        places = self._places()
        freed = sum(_size(place) for place in places)
        if not dry_run:
            with self._lock:
                for key in list(self._loaded):
                    self._loaded.pop(key).close()
                self._failed.clear()
            for place in places:
                shutil.rmtree(place, ignore_errors=True)
        return [place.name for place in places], freed

    # --- in memory ----------------------------------------------------------------------------------

    def _guard(self, key: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(key, threading.Lock())

    def _held(self, key: str) -> Template | None:
        """Duplicate what is loaded, so that it can be let go of meanwhile."""
        with self._lock:
            found = self._loaded.pop(key, None)
            if found is None:
                return None
            self._loaded[key] = found  # the last one used
            return Template(os.dup(found.memory), os.dup(found.state))

    def _keep(self, key: str, made: Template) -> Template:
        with self._lock:
            self._loaded[key] = made
            while len(self._loaded) > LOADED:
                self._loaded.pop(next(iter(self._loaded))).close()
            return Template(os.dup(made.memory), os.dup(made.state))

    def _make(self, key: str, shape: Machine, patience: float) -> Template:
        if key in self._failed:
            raise growth.TemplateFailed(self._failed[key])
        try:
            made = Template(*growth.grow(shape, patience))
        except TrivetError as error:
            self._failed[key] = error.message
            raise
        # Written behind the caller's back: a fork can begin with what is in memory.
        held = Template(os.dup(made.memory), os.dup(made.state))
        threading.Thread(target=self._save, args=(key, held), name="template", daemon=True).start()
        return made

    # --- on disk ------------------------------------------------------------------------------------

    def _load(self, key: str) -> Template | None:
        place = self._directory / key
        try:
            found = stored.load(place)
            os.utime(place)
        except OSError:
            shutil.rmtree(place, ignore_errors=True)  # perhaps incomplete or damaged: better made anew
            return None
        return found

    def _save(self, key: str, made: Template) -> None:
        """Write a template out; a disk that is full only means that the next engine makes it anew."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=self._directory) as scratch:
                ready = Path(scratch, key)
                ready.mkdir()
                stored.store(made, ready)
                if not self._directory.joinpath(key).exists():
                    ready.rename(self._directory / key)
            self._bound()
        except OSError:  # also when another engine was faster
            pass
        finally:
            made.close()

    def _places(self) -> list[Path]:
        found = [path for path in self._directory.glob("[!.]*") if path.is_dir()]
        return sorted(found, key=_used, reverse=True)

    def _bound(self) -> None:
        stale = [path for path in self._directory.glob(".new-*") if _used(path) < time.time() - _STALE]
        for place in (*self._places()[KEPT:], *stale):
            shutil.rmtree(place, ignore_errors=True)


def shape_of(machine: Machine) -> Machine:
    """Leave a machine only what its template has.

    Free pages are reported only by elastic ones, whose memory isn't shared: others couldn't give them back.
    """
    return msgspec.structs.replace(
        machine,
        name="template",
        console=Console(log="/dev/null"),
        qmp="",
        agent=Port(name=machine.agent.name if machine.agent else "", fd=0),
        drives=tuple(Placeholder(name=drive.name, read_only=drive.read_only) for drive in machine.drives),
        nics=(),
        share=None,
        balloon=Balloon(reporting=machine.elastic),
        generation=Generation(),
        slots=PORTS,
        memory_file=Memory(path="", shared=True),
        incoming=False,
    )


def digest(shape: Machine) -> str:
    """Name what a fork must have in common with its template."""
    processor = platform.release() + _processor() if shape.acceleration is Acceleration.KVM else ""
    kernel = Path(shape.kernel).stat()
    words = (program.version(shape.program), str(kernel.st_mtime_ns), processor, *command_line(shape))
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:32]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return "".join(line for line in lines if line.startswith(("model name", "microcode", "flags")))


def _used(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:
        return 0.0


def _size(place: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in place.glob("*"))
