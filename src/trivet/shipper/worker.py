"""Sends one log, for as long as it is wanted: what can't be sent waits in the log."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from trivet.base.clock import now_ns
from trivet.launch.log import Record
from trivet.shipper import position
from trivet.shipper.book import Book, Entry
from trivet.shipper.receiver import receiver

POLL = 0.1
FIRST, LONGEST = 0.2, 10.0  # seconds between attempts
LOST = b"trivet: some output was rotated away before it could be sent\n"

log = logging.getLogger("ship")


class Worker(threading.Thread):
    """A thread per log, so that no receiver that hangs holds up another."""

    def __init__(self, entry: Entry, book: Book) -> None:
        super().__init__(name=entry.name, daemon=True)
        self.entry = entry
        self._receiver = receiver(entry, book)
        self._end = threading.Event()

    def run(self) -> None:
        """Send until `stop`."""
        files, sent = Path(self.entry.log), Path(self.entry.sent)
        here, pause, failed = position.load(sent), 0.0, 0.0
        while not self._end.wait(pause):
            batch = position.read(files, here)
            if batch.after == here:
                pause = POLL
                continue
            records = [*([Record(now_ns(), "stderr", False, LOST)] if batch.lost else []), *batch.records]
            try:
                self._receiver.send(records)
            except (OSError, ValueError) as error:
                if not failed:
                    log.warning("cannot send the log of %s: %s", self.entry.name, error)
                self._receiver.close()
                pause = failed = min(max(failed * 2, FIRST), LONGEST)
                here = batch.before if not batch.lost else here  # what is rotated away from here on is missed
                continue
            pause = failed = 0.0
            here = batch.after
            position.save(sent, here)
        self._receiver.close()

    def stop(self) -> None:
        """End soon; what is being sent is sent first."""
        self._end.set()
