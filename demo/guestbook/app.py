"""A guest book: POST / adds a line, GET / returns them all, GET /machine tells what the program sees of its machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]  # it is in the image, not here

PATIENCE = 300.0  # seconds for PostgreSQL to come up; emulated machines are slow
LONGEST = 1000  # characters of an entry
TABLE = (
    "CREATE TABLE IF NOT EXISTS entry (id serial PRIMARY KEY, text text NOT NULL, written timestamptz DEFAULT now())"
)


def main() -> None:
    """Wait for the database, then serve until SIGTERM."""
    wait_for_database()
    execute(TABLE)
    server = ThreadingHTTPServer(("", int(os.environ["PORT"])), Door)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"guestbook: open on port {server.server_port}")
    server.serve_forever(poll_interval=0.1)


def wait_for_database() -> None:
    """Try until PostgreSQL lets us in. The environment (PGHOST, PGPORT, ...) says where and as whom."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            psycopg2.connect("").close()
            return
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline:
                sys.exit(f"guestbook: PostgreSQL did not come up in {PATIENCE:.0f} s: {error}")
            time.sleep(0.05)


def execute(statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement in a connection and a transaction of its own; returns the rows, if it has any."""
    connection = psycopg2.connect("")
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


class Door(BaseHTTPRequestHandler):
    """The two things visitors do, and the question where they are."""

    def do_GET(self) -> None:
        """Answer with the entries, or with the machine."""
        if self.path == "/":
            rows = execute("SELECT id, text, written::text FROM entry ORDER BY id")
            self._answer(200, [{"id": key, "text": text, "written": written} for key, text, written in rows])
        elif self.path == "/machine":
            self._answer(200, machine())
        else:
            self._answer(404, {"error": f"nothing is at {self.path}"})

    def do_POST(self) -> None:
        """Write a line into the book."""
        length = int(self.headers.get("Content-Length", 0))
        text = self.rfile.read(min(length, 4 * LONGEST)).decode(errors="replace").strip()
        if not text or len(text) > LONGEST:
            return self._answer(400, {"error": f"an entry has 1 to {LONGEST} characters"})
        rows = execute("INSERT INTO entry (text) VALUES (%s) RETURNING id", text)
        return self._answer(201, {"id": rows[0][0]})

    def log_message(self, format: str, *args: object) -> None:
        """Keep the log to what matters."""

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def machine() -> dict[str, object]:
    """Tell what can be seen from in here."""
    return {
        "kernel": os.uname().release,
        "hostname": socket.gethostname(),
        "user": os.getuid(),
        "users": [[int(word) for word in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()],
        "interfaces": [name for _, name in socket.if_nameindex()],
        "processes": len(processes()),
        "first": Path("/proc/1/comm").read_text().strip(),
        "memory": sum(map(proportional, family(os.getppid()))),
    }


def processes() -> dict[int, int]:
    """Map every visible process to its parent."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
    return found


def family(root: int) -> set[int]:
    """Return a process and its descendants: the service without its neighbours."""
    parents, members = processes(), {root}
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return members


def proportional(pid: int) -> int:
    """Return a process's proportional set size in bytes: shared pages count by their share."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
