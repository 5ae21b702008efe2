"""Records: what the engine knows about its objects, in one SQLite file.

    record.db
    └── document(kind, id, name, body)     body is the JSON of one typed record
          kind "instance", "image", "volume", "network", "lease", ...   one `Table` each
          (kind, id) is the key; (kind, name) is unique where a name is given

One connection, guarded by a lock: statements take microseconds, and one writer is what SQLite has. It has the
file to itself, so that no statement asks the kernel for locks, and what was read or written is remembered (known.py).
Beside the file lies a reserve of RESERVE bytes: on a full disk it is given up, so that the ends of instances and the
removal of things can still be recorded (nothing new, which is refused), and made again when there is room.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar, cast

import msgspec

from trivet.base.error import AlreadyExists, Conflict, Corrupt, Exhausted, NotFound
from trivet.store.known import Known
from trivet.store.migration import migrate

T = TypeVar("T")

RESERVE = 4 << 20


class Records:
    """The record file of one engine, which nobody else can open meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reserve = path.with_suffix(".reserve")
        self._lock = threading.RLock()
        self._depth = 0
        self._written: list[tuple[str, tuple[object, ...]]] = []  # in the transaction
        self._growing = False  # whether it adds a record
        self._known: dict[str, Known] = {}
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # before WAL: then it needs no shared memory
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            migrate(self._connection)
        except sqlite3.DatabaseError as error:
            raise Corrupt(f"cannot open record file {path}: {error}") from error
        self.keep_reserve()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Make everything inside happen or not happen; nested use joins the outer one.

        Raises `Exhausted` on a full disk.
        """
        with self._lock:
            if self._depth:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth, self._growing, self._written = 1, False, []
            try:
                yield self._connection
                sys.audit("trivet.commit", str(self.path))
                self._commit()
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                for known in self._known.values():
                    known.clear()
                raise
            finally:
                self._depth = 0

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read without opening a transaction; sees what the thread's own transaction has written."""
        with self._lock:
            yield self._connection

    def write(self, sql: str, values: tuple[object, ...], *, growing: bool = False) -> int:
        """Run one statement, alone or in the transaction; returns the number of rows.

        One that is `growing` adds a record. Raises `Exhausted` on a full disk.
        """
        with self._lock:
            try:
                if self._depth:
                    self._growing |= growing
                    self._written.append((sql, values))
                return self._connection.execute(sql, values).rowcount
            except sqlite3.OperationalError as error:
                self._make_room(error, growing=growing or self._depth > 0)
            return self._connection.execute(sql, values).rowcount

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._make_room(error, growing=self._growing)
        else:
            return
        if not self._connection.in_transaction:  # SQLite undoes what it has no room for
            self._connection.execute("BEGIN IMMEDIATE")
            for sql, values in self._written:
                self._connection.execute(sql, values)
        self._connection.execute("COMMIT")

    def _make_room(self, error: sqlite3.OperationalError, *, growing: bool) -> None:
        """Give up the reserve after an error that says that the disk is full, unless for something new."""
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise error
        if growing or not self._reserve.exists():
            raise Exhausted(f"no space left on the disk of {self.path}") from error
        self._reserve.unlink()

    def known(self, kind: str) -> Known:
        """Give what is remembered of one kind; to be used while `reading` or in a transaction."""
        return self._known.setdefault(kind, Known())

    def keep_reserve(self) -> None:
        """Make the reserve where it is missing and the disk has room; called where something was removed."""
        if self._reserve.exists():
            return
        try:
            descriptor = os.open(self._reserve, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(descriptor, 0, RESERVE)
        except OSError:
            self._reserve.unlink()
        finally:
            os.close(descriptor)

    def table(self, kind: str, shape: type[T]) -> Table[T]:
        """Open the documents of one kind, read and written as `shape`."""
        return Table(self, kind, shape)

    def problems(self) -> list[str]:
        """Run SQLite's own integrity check; empty when all is well."""
        with self._lock:
            rows = self._connection.execute("PRAGMA integrity_check").fetchall()
        return [text for (text,) in rows if text != "ok"]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


class Table(Generic[T]):
    """All records of one kind, which are frozen. Raises `AlreadyExists` and `NotFound` naming kind and object."""

    def __init__(self, records: Records, kind: str, shape: type[T]) -> None:
        self._records = records
        self._kind = kind
        self._decoder = msgspec.json.Decoder(shape)
        self._known = records.known(kind)

    def follow(self, follower: Callable[[str], object]) -> None:
        """Call `follower` with the key of every record that is written or removed; in any thread, so it must be quick.

        It hears of changes that a transaction takes back, too.
        """
        with self._records.reading():
            self._known.followers.append(follower)

    def insert(self, key: str, value: T, *, name: str | None = None) -> None:
        """Add a record; its key and its name must both be free."""
        try:
            with self._records.reading():
                self._records.write(
                    "INSERT INTO document(kind, id, name, body) VALUES (?, ?, ?, ?)",
                    (self._kind, key, name, msgspec.json.encode(value)),
                    growing=True,
                )
                self._known.keep(key, name, value)
                self._known.tell(key)
        except sqlite3.IntegrityError as error:
            raise AlreadyExists(f"{self._kind} {name or key} already exists") from error

    def put(self, key: str, value: T, *, name: str | None = None) -> None:
        """Add or replace a record and its name."""
        try:
            with self._records.reading():
                self._records.write(
                    "INSERT INTO document(kind, id, name, body) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT(kind, id) DO UPDATE SET name = excluded.name, body = excluded.body",
                    (self._kind, key, name, msgspec.json.encode(value)),
                )
                self._known.keep(key, name, value)
                self._known.tell(key)
        except sqlite3.IntegrityError as error:
            raise AlreadyExists(f"{self._kind} {name} already exists") from error

    def update(self, key: str, value: T) -> None:
        """Replace the body of an existing record."""
        sql = "UPDATE document SET body = ? WHERE kind = ? AND id = ?"
        with self._records.reading():
            if not self._records.write(sql, (msgspec.json.encode(value), self._kind, key)):
                raise NotFound(f"no such {self._kind}: {key}")
            self._known.change(key, value)
            self._known.tell(key)

    def get(self, key: str) -> T | None:
        """Read one record by its key."""
        with self._records.reading():
            known = self._known.get(key)
            return cast(T, known) if known is not None else self._one("id = ?", key)

    def by_name(self, name: str) -> T | None:
        """Read one record by its name."""
        with self._records.reading():
            known = self._known.by_name(name)
            return cast(T, known) if known is not None else self._one("name = ?", name)

    def find(self, ref: str) -> T:
        """Read one record by key, name, or unique prefix of a key. Raises `Conflict` when it is ambiguous."""
        with self._records.reading():
            known = self._known.get(ref) or self._known.by_name(ref)
        found = cast(T | None, known) or self.get(ref) or self.by_name(ref)
        if found is not None:
            return found
        rows = self._bodies("id >= ? AND id < ?", ref, ref + "\uffff") if ref else []
        if not rows:
            raise NotFound(f"no such {self._kind}: {ref}")
        if len(rows) > 1:
            raise Conflict(f"{self._kind} {ref} is ambiguous: {len(rows)} ids begin with it")
        return rows[0]

    def all(self) -> list[T]:
        """Read all records, oldest first."""
        with self._records.reading():
            if self._known.everything is None:
                self._known.everything = list[object](self._bodies("1"))
            return cast(list[T], list(self._known.everything))

    def below(self, prefix: str, *, after: str = "", limit: int = -1) -> list[T]:
        """Read records whose key begins with `prefix`, in the order of keys: at most `limit`, from behind `after`."""
        first = prefix + after + "\0" if after else prefix
        return self._bodies("id >= ? AND id < ?", first, prefix + "\uffff", order="id", limit=limit)

    def delete(self, key: str) -> bool:
        """Remove a record; False when it wasn't there."""
        with self._records.reading():
            gone = self._records.write("DELETE FROM document WHERE kind = ? AND id = ?", (self._kind, key)) > 0
            self._known.drop(key)
            self._known.tell(key)
        self._records.keep_reserve()
        return gone

    def _one(self, where: str, value: str) -> T | None:
        rows = self._bodies(where, value)
        return rows[0] if rows else None

    def _bodies(self, where: str, *values: str, order: str = "rowid", limit: int = -1) -> list[T]:
        where = f"kind = ? AND {where} ORDER BY {order} LIMIT {limit:d}"
        with self._records.reading() as connection:
            rows = connection.execute(f"SELECT id, name FROM document WHERE {where}", (self._kind, *values)).fetchall()
            return [self._value(connection, key, name) for key, name in rows]

    def _value(self, connection: sqlite3.Connection, key: str, name: str | None) -> T:
        known = self._known.get(key)
        if known is not None:
            return cast(T, known)
        (body,) = connection.execute(
            "SELECT body FROM document WHERE kind = ? AND id = ?", (self._kind, key)
        ).fetchone()
        try:
            value = self._decoder.decode(body)
        except msgspec.DecodeError as error:
            raise Corrupt(f"record of {self._kind} {key} cannot be read: {error}") from error
        self._known.keep(key, name, value)
        return value
