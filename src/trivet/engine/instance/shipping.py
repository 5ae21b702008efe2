"""The engine's side of its shipper (`trivet.shipper`): what it is to send, and that it runs.

Everything follows from the records. A shipper goes on while the engine is away, and the next engine replaces it, as it
may be of another version; what was sent is known by then.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from trivet.engine.instance.model import InstanceRecord
from trivet.shipper import book as books
from trivet.shipper import main as program
from trivet.shipper import position, tag
from trivet.shipper.book import Book, Entry
from trivet.shipper.option import SHIPPED

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds for an earlier shipper to go
FAREWELL = 2.0  # seconds a log has to be sent before its instance is removed
PAUSE = 1.0
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from trivet.shipper.main import main; sys.exit(main())"
_LOCK = "hhqqi4x"  # struct flock, fcntl(2)


class Shipping:
    """The shipper of one engine. Methods block, and may be called from any thread."""

    def __init__(self, directory: Path, journal: str, look: Callable[[], Iterable[InstanceRecord]]) -> None:
        self.book, self.log = directory / "ship.json", directory / "ship.log"
        self._journal, self._look = journal, look
        self._lock = threading.Lock()
        self._told: Book | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = False

    def announce(self) -> None:
        """Let the shipper know what the records say now; start it if it is needed, end it if it isn't."""
        with self._lock:
            wanted = Book(journal=self._journal, entries=tuple(entry(each) for each in self._look() if ships(each)))
            if wanted.entries:
                if wanted != self._told:
                    books.write(self.book, wanted)
                self._told = wanted
                if self._child is None and not self._ended:
                    self._start()
            elif self._told is None or self._told.entries:
                self._stop()
                self._told = wanted

    def farewell(self, record: InstanceRecord) -> None:
        """Give a log that is about to go a moment to be sent."""
        if not ships(record):
            return
        path, sent = Path(record.plan.log.path), _sent(record)
        deadline = time.monotonic() + FAREWELL
        while not position.all_sent(path, sent):
            if time.monotonic() > deadline:
                log.warning("the end of the log of %s was not sent: its receiver does not answer", record.name)
                return
            time.sleep(0.02)

    def stop(self) -> None:
        """End it, and forget what it was told."""
        with self._lock:
            self._ended = True
            self._stop()

    def leave(self) -> None:
        """Let it go on without us."""
        self._ended = True

    # inside; the lock is held

    def _start(self) -> None:
        _dismiss(self.book)
        source = str(Path(program.__file__).parents[2])
        with self.log.open("wb") as errors:
            child = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, source, str(self.book)],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, cwd="/", start_new_session=True,
            )  # fmt: skip
        self._child = child
        threading.Thread(target=self._watch, args=(child,), name="ship", daemon=True).start()

    def _stop(self) -> None:
        child, self._child = self._child, None
        self.book.unlink(missing_ok=True)
        if child is not None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE)
        _dismiss(self.book)

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        """Wait for its end; when it was not meant, start another."""
        descriptor = os.pidfd_open(child.pid)
        select.select([descriptor], [], [])
        os.close(descriptor)
        child.wait()
        time.sleep(PAUSE)
        with self._lock:
            if self._child is child and not self._ended:
                log.warning("the log shipper ended with %s; starting another, see %s", child.returncode, self.log)
                self._start()


def ships(record: InstanceRecord) -> bool:
    """Tell whether an instance's log goes elsewhere."""
    return record.request.log.driver in SHIPPED and bool(record.plan.log.path)


def entry(record: InstanceRecord) -> Entry:
    """Describe an instance's log for the shipper."""
    wish = record.request.log
    facts = {
        "ID": record.id[:12],
        "FullID": record.id,
        "Name": record.name,
        "ImageID": record.image_id.removeprefix("sha256:")[:12],
        "ImageFullID": record.image_id,
        "ImageName": record.image,
        "DaemonName": "trivet",
    }
    return Entry(
        id=record.id,
        name=record.name,
        image=record.image,
        driver=wish.driver,
        options=wish.options,
        log=record.plan.log.path,
        sent=str(_sent(record)),
        tag=tag.render(wish.options.get("tag", ""), facts),
        extra=_extra(record),
    )


def _extra(record: InstanceRecord) -> dict[str, str]:
    """Choose the labels and variables that go along."""
    environment = dict(item.split("=", 1) for item in record.plan.program.env if "=" in item)
    found: dict[str, str] = {}
    for kind, there in (("labels", record.request.labels), ("env", environment)):
        options = record.request.log.options
        names = [each.strip() for each in options.get(kind, "").split(",")]
        pattern = options.get(f"{kind}-regex", "")
        found |= {key: text for key, text in there.items() if key in names or (pattern and re.search(pattern, key))}
    return found


def _sent(record: InstanceRecord) -> Path:
    path = Path(record.plan.log.path)
    return path.with_name(f"{path.name}.sent")


def _dismiss(book: Path) -> None:
    """End a shipper of an earlier engine: the one that holds the lock. Its pid can't be another's, it holds it."""
    deadline = time.monotonic() + PATIENCE
    with book.with_suffix(".lock").open("wb") as lock:
        while time.monotonic() < deadline:
            asked = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_LOCK, fcntl.fcntl(lock, fcntl.F_GETLK, asked))
            if kind == fcntl.F_UNLCK:
                return
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            time.sleep(0.05)
    log.warning("an earlier log shipper does not end; the new one waits for it")
