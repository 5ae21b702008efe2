"""Unpacking a layer: a hostile tar stream becomes files below one directory, and nothing anywhere else.

The result is what overlayfs wants of a lower directory: `.wh.name` becomes a character device 0:0,
`.wh..wh..opq` the attribute trusted.overlay.opaque. Attributes and devices that would make overlayfs
look elsewhere are not taken over from the layer. Owners, modes, times (ns), attributes and capabilities
are kept. The directory must be private until `extract` has returned.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from trivet.engine.snapshot import acl, tar
from trivet.engine.snapshot.admission import AUFS, OPAQUE_MARK, WHITEOUT, Admission, safe_xattrs
from trivet.engine.snapshot.stream import Budget
from trivet.engine.snapshot.tar import Entry, Reader, Source
from trivet.engine.snapshot.tree import MalformedLayer, Parts, Tree, is_whiteout, make_directory
from trivet.kernel.overlay import CONFINED, OPAQUE
from trivet.store.content import FULL, StoreFull

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def extract(
    source: Source,
    directory: Path,
    *,
    budget: Budget | None = None,
    whiteouts: bool = True,
    devices: bool = True,
) -> int:
    """Unpack a tar stream into `directory`; return how many whiteouts that made.

    With `whiteouts` off, names beginning with `.wh.` are ordinary (an archive, not a layer); with `devices`
    off, device nodes are refused.
    Raises `MalformedTar`, `MalformedLayer`, `BudgetExceeded`, `StoreFull`; what was unpacked so far stays for the
    caller to remove.
    """
    with Tree(directory) as tree:
        extractor = Extractor(tree, budget or Budget(), whiteouts=whiteouts, devices=devices)
        reader = Reader(source)
        for entry in reader:
            extractor.apply(entry, reader)
        extractor.finish()
        reader.drain()
    return extractor.whiteouts


class Extractor:
    """Applies entries one after the other to a tree."""

    def __init__(self, tree: Tree, budget: Budget, *, whiteouts: bool, devices: bool = True) -> None:
        self.whiteouts = 0
        self._tree = tree
        self._admission = Admission(budget, whiteouts=whiteouts, devices=devices)
        self._directory_times: dict[bytes, int] = {}
        self._defaults: dict[bytes, bytes] = {}  # access control lists, by the directory's path

    def apply(self, entry: Entry, reader: Reader) -> None:
        """Make one entry real. A later entry replaces an earlier one of the same name."""
        self._admission.account(entry)
        try:
            parts = self._admission.split(entry.name)
            if self._admission.is_layer and parts and parts[-1].startswith(WHITEOUT):
                self._whiteout(parts, entry)
            elif not parts or entry.type == tar.DIRECTORY:
                self._directory(parts, entry)
            else:
                self._make(parts, entry, reader)
        except OSError as error:
            raise _explained(entry.name, error) from error

    def finish(self) -> None:
        """Set the directories' times, which making their content has changed, and what new files in them begin with."""
        for path, rights in self._defaults.items():
            try:
                _set_xattr(self._tree.directory(tuple(path.split(b"/")) if path else ()), acl.DEFAULT, rights)
            except (FileNotFoundError, MalformedLayer):
                pass  # replaced by a later entry
        for path, mtime in self._directory_times.items():
            try:
                os.utime(self._tree.directory(tuple(path.split(b"/")) if path else ()), ns=(mtime, mtime))
            except (FileNotFoundError, MalformedLayer):
                pass  # replaced by a later entry

    def _whiteout(self, parts: Parts, entry: Entry) -> None:
        """Record that something of the layers below is gone; what this layer itself brings stays."""
        base = parts[-1]
        if base == OPAQUE_MARK:
            os.setxattr(self._tree.directory(parts[:-1], make=True), OPAQUE, b"y")
            return
        if base.startswith(AUFS):
            return  # bookkeeping of aufs
        name = self._admission.hidden(entry, base)
        parent = self._tree.directory(parts[:-1], make=True)
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
            self.whiteouts += 1
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                os.setxattr(self._tree.directory((*parts[:-1], name)), OPAQUE, b"y")

    def _directory(self, parts: Parts, entry: Entry) -> None:
        if entry.type != tar.DIRECTORY:
            raise MalformedLayer(entry.name, "the root can only be a directory")
        if parts:
            self._ensure_directory(parts)
        descriptor = self._tree.directory(parts)
        path = b"/".join(parts)
        self._dress(descriptor, entry, path)
        os.fchmod(descriptor, entry.mode)
        self._directory_times[path] = entry.mtime_ns
        self._admission.directories(len(self._directory_times))

    def _ensure_directory(self, parts: Parts) -> None:
        """Make a directory, in place of anything else that has its name."""
        parent = self._tree.directory(parts[:-1], make=True)
        try:
            make_directory(parent, parts[-1])
        except FileExistsError:
            state = os.lstat(parts[-1], dir_fd=parent)
            if not stat.S_ISDIR(state.st_mode):
                self._tree.remove(parts)
                self._defaults.pop(b"/".join(parts), None)
                make_directory(self._tree.directory(parts[:-1]), parts[-1], opaque=is_whiteout(state))

    def _make(self, parts: Parts, entry: Entry, reader: Reader) -> None:
        """Make anything but a directory, replacing what has its name."""
        parent = self._tree.directory(parts[:-1], make=True)
        maker = _MAKERS.get(entry.type)
        if maker is None:
            raise MalformedLayer(entry.name, f"its type is {entry.type!r}")
        try:
            maker(self, parent, parts[-1], entry, reader)
        except FileExistsError:
            self._tree.remove(parts)
            maker(self, self._tree.directory(parts[:-1]), parts[-1], entry, reader)

    def _file(self, parent: int, name: bytes, entry: Entry, reader: Reader) -> None:
        descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            if entry.sparse is None:
                reader.copy(entry.size, lambda piece: _write(descriptor, piece))
            else:
                for offset, length in entry.sparse:
                    os.lseek(descriptor, offset, os.SEEK_SET)
                    reader.copy(length, lambda piece: _write(descriptor, piece))
                os.ftruncate(descriptor, entry.size)
            self._dress(descriptor, entry)
            os.fchmod(descriptor, entry.mode)
            os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(descriptor)

    def _hard_link(self, parent: int, name: bytes, entry: Entry, reader: Reader) -> None:
        parts = self._admission.split(entry.link)
        target = b"/".join(parts) or b"/"
        # Looking the target up may close `parent`, which is only good until the tree's next call.
        parent = os.dup(parent)
        try:
            source = self._tree.directory(parts[:-1])
            state = os.lstat(parts[-1] if parts else b".", dir_fd=source)
            if stat.S_ISDIR(state.st_mode) or is_whiteout(state):
                raise MalformedLayer(entry.name, f"it is a hard link to {target!r}, which is no file")
            os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError as error:
            raise MalformedLayer(
                entry.name, f"it is a hard link to {target!r}, which the layer doesn't have"
            ) from error
        finally:
            os.close(parent)

    def _symlink(self, parent: int, name: bytes, entry: Entry, reader: Reader) -> None:
        os.symlink(entry.link, name, dir_fd=parent)
        self._dress_node(parent, name, entry)

    def _node(self, parent: int, name: bytes, entry: Entry, reader: Reader) -> None:
        kind = {tar.FIFO: stat.S_IFIFO, tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK}[entry.type]
        device = 0 if entry.type == tar.FIFO else os.makedev(entry.major, entry.minor)
        try:
            os.mknod(name, kind | 0o600, device, dir_fd=parent)
        except PermissionError:
            if CONFINED and entry.type != tar.FIFO:
                return  # as other engines do there: instances have a /dev of their own
            raise
        self._dress_node(parent, name, entry)
        os.chmod(name, entry.mode, dir_fd=parent)

    def _dress(self, descriptor: int, entry: Entry, path: bytes = b"") -> None:
        """Give owner and attributes; mode comes after, because chown clears set-id bits.

        What new files begin with is given to a directory, at `path`, when all of the layer's files are in it.
        """
        _chown(descriptor, entry)
        for key, value in safe_xattrs(entry).items():
            if key == acl.DEFAULT:
                self._defaults[path] = value
            else:
                _set_xattr(descriptor, key, value)

    def _dress_node(self, parent: int, name: bytes, entry: Entry) -> None:
        _chown(b"/proc/self/fd/%d/%s" % (parent, name), entry)
        for key, value in safe_xattrs(entry).items():
            _set_xattr(b"/proc/self/fd/%d/%s" % (parent, name), key, value)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)


_MAKERS = {
    tar.FILE: Extractor._file,
    tar.HARD_LINK: Extractor._hard_link,
    tar.SYMLINK: Extractor._symlink,
    tar.CHARACTER: Extractor._node,
    tar.BLOCK_DEVICE: Extractor._node,
    tar.FIFO: Extractor._node,
}


def _chown(target: int | bytes, entry: Entry) -> None:
    try:
        if isinstance(target, int):
            os.fchown(target, entry.uid, entry.gid)
        else:
            os.lchown(target, entry.uid, entry.gid)
    except OSError as error:
        if CONFINED and error.errno == errno.EINVAL:
            problem = f"owner {entry.uid}:{entry.gid} is not mapped in the engine's user namespace"
            raise MalformedLayer(entry.name, problem) from error
        raise


def _set_xattr(target: int | bytes, key: bytes, value: bytes) -> None:
    try:
        if isinstance(target, int):
            os.setxattr(target, key, value)
        else:
            os.setxattr(target, key, value, follow_symlinks=False)
    except OSError as error:
        # A file system without the attribute's name space (user.* on a link, security.selinux) is no reason to stop.
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise


def _write(descriptor: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(descriptor, piece) :]


def _explained(name: bytes, error: OSError) -> Exception:
    if error.errno in FULL:
        return StoreFull(os.fsdecode(name), error)
    return MalformedLayer(name, f"{error.strerror}")
