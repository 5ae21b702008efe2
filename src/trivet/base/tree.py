"""Making and deleting directories of our own, quickly: most of them hold few files, or nothing."""

from __future__ import annotations

import logging
import os
import queue
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)


def make(path: str, mode: int = 0o700) -> None:
    """Make a directory, and those above it, unless it is there."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    except FileNotFoundError:
        os.makedirs(path, mode, exist_ok=True)


def delete(path: Path | str, levels: int = 2) -> None:
    """Delete a file, or a directory with everything in it; missing is fine, what can't be deleted stays.

    Never follows a link. What is more than `levels` deep is left to `shutil.rmtree`, which withstands somebody who
    moves directories meanwhile and takes several times as long.
    """
    if _emptied(path):
        return
    try:
        entries = list(os.scandir(path))
    except OSError:
        _unlink(path)
        return
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            _unlink(entry.path)
        elif not _emptied(entry.path):
            if levels > 1:
                delete(entry.path, levels - 1)
            else:
                shutil.rmtree(entry.path, ignore_errors=True)
    _emptied(path)


def _emptied(directory: Path | str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _unlink(path: Path | str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def delete_later(path: Path | str, then: Callable[[], None] | None = None) -> None:
    """Delete a file or directory soon, in a thread of its own; nobody else may want its name any more."""
    global _deleting
    _pending.put((os.fspath(path), then))
    with _lock:
        if not _deleting:
            _deleting = True
            threading.Thread(target=_delete_pending, name="delete", daemon=True).start()


def settle() -> None:
    """Wait until what was to be deleted later is gone."""
    _pending.join()


def _delete_pending() -> None:
    while True:  # to start a thread takes as long as to delete something
        path, then = _pending.get()
        try:
            delete(path)
            if then:
                then()
        except Exception:  # the next one is to be deleted all the same
            log.exception("cannot delete %s", path)
        _pending.task_done()


_lock = threading.Lock()
_pending: queue.Queue[tuple[str, Callable[[], None] | None]] = queue.Queue()
_deleting = False
