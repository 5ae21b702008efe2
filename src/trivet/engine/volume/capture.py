"""Reading a volume while it is in use, so that it has to stand still for a moment only.

    sweep      everything is read while programs write on
    sweep …    what has changed meanwhile is read again, until that is little
    stand still ─▶ sweep: what is still different is put aside, copied and not yet looked at ─▶ go on
               (large files by two threads, into memory that is there already; directories are known from before)
    finish     what was put aside is read

A file is taken as unchanged if its times and size are what they were, and its last change is older than
the `fdatasync` before it was read: from then on a write through a memory mapping faults first, which
changes the times (file_update_time in the kernel's page_mkwrite).
"""

from __future__ import annotations

import mmap
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec

from trivet.engine.snapshot.pack import Packer
from trivet.engine.snapshot.walk import Node, changes
from trivet.engine.volume.populate import attributes, copy_content, take_over
from trivet.engine.volume.recipe import CHUNK, LITERAL, Writer
from trivet.kernel.priority import first

LITTLE = 16 << 20  # bytes that may be left for the moment of standing still
ROOM = 1 << 30  # bytes of memory that may be taken for it
SWEEPS = 4
SETTLED = 600 * 10**9  # ns: older changes have long been written back (vm.dirty_expire_centisecs is 30 s)
LARGE = 4 << 20  # bytes of a file from which on it is copied by several threads, in pieces of
PIECE = 8 << 20
COPIERS = 2
GRAIN = 20 * 10**6  # ns: the clock of file times is coarser than ours (current_time in the kernel)

Parts = list[int | bytes]
Signature = tuple[int, int, int, int, int]


class _Seen(msgspec.Struct):
    """What was read of a file: its part of the stream, as it was then, and since when a change must show."""

    signature: Signature
    guarded: int
    parts: Parts


class _Known(msgspec.Struct):
    """The part of what has no content, a directory or a link, and until when it holds: as for `_Seen`."""

    signature: Signature
    guarded: int
    parts: Parts


class _Large(msgspec.Struct):
    """A large file that is being copied, in pieces."""

    node: Node
    descriptor: int
    begin: int
    state: os.stat_result
    xattrs: dict[str, bytes]
    pieces: list[Future[bool]]


class Copied(Node, frozen=True, kw_only=True):
    """A file that was put aside: reads as the original would."""

    aside: Path

    def xattrs(self) -> dict[bytes, bytes]:
        """Read the extended attributes."""
        return {os.fsencode(key): os.getxattr(self.aside, key) for key in sorted(os.listxattr(self.aside))}

    def open(self) -> int:
        """Open the copy."""
        return os.open(self.aside, os.O_RDONLY | os.O_CLOEXEC)


class Room:
    """Memory for what is put aside, taken and touched beforehand: page faults are most of what copying costs."""

    def __init__(self, size: int) -> None:
        size = min(size, ROOM, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)
        self._memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
        self._used = 0
        self._held: list[tuple[int, os.stat_result, dict[str, bytes], Path]] = []

    def reserve(self, state: os.stat_result) -> int | None:
        """Set room aside for a file, unless it has holes or doesn't fit; return where that begins."""
        size, begin = state.st_size, self._used
        if state.st_blocks * 512 < size or begin + size > len(self._memory):
            return None
        self._used += size
        return begin

    def fill(self, descriptor: int, begin: int, at: int, size: int) -> bool:
        """Copy a piece of a file to the room that begins there; any thread may. Tells whether it was all there."""
        done = 0
        with memoryview(self._memory) as view:
            place = view[begin + at : begin + at + size]
            while done < size and (count := os.preadv(descriptor, [place[done:]], at + done)):
                done += count
            place.release()
        return done == size

    def hold(self, begin: int, state: os.stat_result, xattrs: dict[str, bytes], copy: Path) -> None:
        """Remember that a file was copied there, and is to become `copy`."""
        self._held.append((begin, state, xattrs, copy))

    def clear(self) -> None:
        """Write down what is held, and give the memory back."""
        for begin, state, xattrs, copy in self._held:
            with copy.open("xb") as target, memoryview(self._memory) as view:
                target.write(view[begin : begin + state.st_size])
                target.flush()
                take_over(state, xattrs, target.fileno())
        self._held.clear()
        self._memory.close()


class Capture:
    """One reading of a volume. `scratch` is an empty directory for what is put aside."""

    def __init__(
        self, root: Path, writer: Writer, scratch: Path, count: Callable[[int], None] = lambda size: None
    ) -> None:
        self._root = root
        self._writer = writer
        self._scratch = scratch
        self._count = count
        self._read = 0
        self._seen: dict[bytes, _Seen] = {}
        self._order: list[tuple[bytes, Parts | None]] = []
        self._aside: list[tuple[Copied, Signature]] = []
        self._room = Room(0)
        self._known: dict[tuple[bytes, bytes], _Known] = {}
        self._copiers = ThreadPoolExecutor(COPIERS, "copy", first)  # somebody stands still meanwhile

    def approach(self) -> None:
        """Read everything, then again what has changed, until little changes."""
        self.sweep()
        left = LITTLE
        for _ in range(SWEEPS):
            left = self.sweep()
            if left < LITTLE:
                break
        self._room = Room(left + left // 4 + LITTLE)
        barrier = threading.Barrier(COPIERS + 1)
        for _ in range(COPIERS):
            self._copiers.submit(barrier.wait)  # so that the threads are there
        barrier.wait()

    def sweep(self, *, aside: bool = False) -> int:
        """Look at every file and read those that may have changed, or put them `aside`; return their bytes."""
        read, self._order = 0, [(b"", self._directory())]
        links: dict[tuple[int, int], bytes] = {}
        with ExitStack() as copying:
            for node in changes(self._root):
                state = node.state
                if not stat.S_ISREG(state.st_mode):
                    if not (stat.S_ISCHR(state.st_mode) or stat.S_ISBLK(state.st_mode)):
                        self._order.append((node.path, self._plain(node, b"", self._parts)))
                    continue
                first = links.setdefault((state.st_dev, state.st_ino), node.path) if state.st_nlink > 1 else node.path
                if first != node.path:
                    self._order.append((node.path, self._plain(node, first, partial(self._hard_link, first=first))))
                    continue
                self._order.append((node.path, None))
                if self._changed(node):
                    read += state.st_size
                    self._put_aside(node, copying) if aside else self._take(node)
        return read

    def finish(self) -> Parts:
        """Read what was put aside; return the whole stream."""
        self._copiers.shutdown()
        self._room.clear()
        for node, signature in self._aside:
            self._seen[node.path] = _Seen(signature, 0, self._parts(node))
            node.aside.unlink()
        stream: Parts = []
        for path, parts in self._order:
            found = self._seen.get(path) if parts is None else None
            stream += parts if parts is not None else found.parts if found else ()
        return [*stream, bytes(1024)]

    def _changed(self, node: Node) -> bool:
        seen = self._seen.get(node.path)
        return seen is None or seen.signature != _signature(node.state) or node.state.st_ctime_ns >= seen.guarded

    def _take(self, node: Node) -> None:
        """Read a file into the pack. One that has gone or become something else is met by the next sweep."""
        guarded = time.time_ns() - GRAIN
        try:
            if guarded - node.state.st_ctime_ns < SETTLED:
                descriptor = node.open()
                try:
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)
            self._seen[node.path] = _Seen(_signature(node.state), guarded, self._parts(node))
        except OSError:
            self._seen.pop(node.path, None)

    def _put_aside(self, node: Node, copying: ExitStack) -> None:
        """Copy a file: into memory that is there already, which is several times faster, or else onto the disk.

        A large one is done when `copying` is.
        """
        with ExitStack() as undo:
            descriptor = node.open()
            undo.callback(os.close, descriptor)
            state, xattrs = os.fstat(descriptor), attributes(descriptor)
            begin = self._room.reserve(state)
            if begin is not None and state.st_size >= LARGE:
                pieces = [
                    self._copiers.submit(self._room.fill, descriptor, begin, at, min(PIECE, state.st_size - at))
                    for at in range(0, state.st_size, PIECE)
                ]
                copying.push(undo.pop_all())
                copying.callback(self._settle, _Large(node, descriptor, begin, state, xattrs, pieces))
            elif begin is not None and self._room.fill(descriptor, begin, 0, state.st_size):
                self._room.hold(begin, state, xattrs, self._aside_as(node))
            else:
                self._onto_disk(node, descriptor, state, xattrs)

    def _settle(self, large: _Large) -> None:
        """Wait for a large file's pieces."""
        complete = [piece.result() for piece in large.pieces]  # all of them, whatever the first says
        if all(complete):
            self._room.hold(large.begin, large.state, large.xattrs, self._aside_as(large.node))
        else:
            self._onto_disk(large.node, large.descriptor, large.state, large.xattrs)

    def _onto_disk(self, node: Node, descriptor: int, state: os.stat_result, xattrs: dict[str, bytes]) -> None:
        with self._aside_as(node).open("xb") as target:
            copy_content(descriptor, target.fileno())
            take_over(state, xattrs, target.fileno())

    def _aside_as(self, node: Node) -> Path:
        """Note that a file is put aside, and say as what."""
        copy = self._scratch / str(len(self._aside))
        single = Copied(path=node.path, parent=-1, name=node.name, state=node.state, aside=copy)
        self._aside.append((single, _signature(node.state)))
        return copy

    def _plain(self, node: Node, first: bytes, make: Callable[[Node], Parts]) -> Parts:
        """Give the part of what has no content, made anew only if it may have changed."""
        known, signature = self._known.get((node.path, first)), _signature(node.state)
        if known is None or known.signature != signature or node.state.st_ctime_ns >= known.guarded:
            guarded = time.time_ns() - GRAIN
            known = self._known[node.path, first] = _Known(signature, guarded, make(node))
        return known.parts

    def _parts(self, node: Node) -> Parts:
        """Make a file's part of the stream."""
        parts: Parts = []
        packer = Packer(lambda piece: self._piece(parts, piece), faithful=True)
        packer.whole(node)
        return parts

    def _directory(self) -> Parts:
        """Make the part of the volume's own directory."""
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            node = Node(path=b".", parent=descriptor, name=b".", state=os.fstat(descriptor))
            return self._plain(node, b"", self._parts)
        finally:
            os.close(descriptor)

    def _hard_link(self, node: Node, first: bytes) -> Parts:
        parts: Parts = []
        Packer(lambda piece: self._piece(parts, piece), faithful=True).hard_link(node, first)
        return parts

    def _piece(self, parts: Parts, piece: bytes) -> None:
        """Add to a part: short pieces as they are, joined, longer ones as chunks."""
        if len(piece) <= LITERAL:
            last = parts[-1] if parts else 0
            if isinstance(last, bytes):
                parts[-1] = last + piece
            else:
                parts.append(piece)
            return
        view = memoryview(piece)
        for at in range(0, len(view), CHUNK):
            parts.append(self._writer.put(view[at : at + CHUNK]))
        self._read += len(view)
        self._count(self._read)


def _signature(state: os.stat_result) -> Signature:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
