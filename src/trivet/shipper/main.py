"""The process: reads its book, keeps a worker for each log in it, and ends when it is told to.

    engine ──▶ ship.json (replaced as a whole) ──▶ shipper ──▶ receivers
    monitors ──▶ log, log.1, … ──────────────────────┘ └──▶ log.sent

It holds a lock beside the book, so that there is one per engine, and takes over when another one goes.
"""

from __future__ import annotations

import fcntl
import logging
import signal
import sys
import threading
from pathlib import Path

from trivet.base.error import Corrupt
from trivet.shipper import book as books
from trivet.shipper.book import Book
from trivet.shipper.worker import Worker

LOOK = 0.1  # seconds between looks at the book
FAREWELL = 6.0  # seconds for what is being sent


def main() -> int:
    """Run until SIGTERM, or until the book is gone: `main.py BOOK`."""
    path = Path(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ctrl-c is for others
    with path.with_suffix(".lock").open("wb") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        workers: dict[str, Worker] = {}
        known: tuple[int, int] | None = None
        while not ended.wait(0 if known is None else LOOK):
            try:
                status = path.stat()
                if (status.st_ino, status.st_mtime_ns) == known:
                    continue
                _follow(books.read(path), workers)
                known = status.st_ino, status.st_mtime_ns
            except FileNotFoundError:
                break
            except Corrupt as error:
                logging.error("%s", error.message)
                break
        for worker in workers.values():
            worker.stop()
        for worker in workers.values():
            worker.join(FAREWELL)
    return 0


def _follow(book: Book, workers: dict[str, Worker]) -> None:
    """Make the workers fit the book."""
    wanted = {entry.id: entry for entry in book.entries}
    for key in [key for key, worker in workers.items() if wanted.get(key) != worker.entry]:
        worker = workers.pop(key)
        worker.stop()
        worker.join(FAREWELL)  # or two would send the same
    for key, entry in wanted.items():
        if key not in workers:
            workers[key] = Worker(entry, book)
            workers[key].start()


if __name__ == "__main__":
    sys.exit(main())
