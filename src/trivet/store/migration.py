"""Numbered migrations of the record file: each runs once, in order, in a transaction of its own."""

from __future__ import annotations

import sqlite3

from trivet.base.error import Unsupported

MIGRATIONS = (
    """
    CREATE TABLE document(
        kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT, body BLOB NOT NULL,
        PRIMARY KEY (kind, id), UNIQUE (kind, name)
    )
    """,
    # an instance has several networks: the one it had becomes the first
    """
    UPDATE document SET body = CAST(json_set(CAST(body AS TEXT), '$.request.networks', json_array(json_object(
        'network', json_extract(CAST(body AS TEXT), '$.request.network'),
        'aliases', json(coalesce(json_extract(CAST(body AS TEXT), '$.request.network_aliases'), '[]')),
        'ip', coalesce(json_extract(CAST(body AS TEXT), '$.request.ip'), ''),
        'mac', coalesce(json_extract(CAST(body AS TEXT), '$.request.mac'), '')))) AS BLOB)
    WHERE kind = 'instance' AND coalesce(json_extract(CAST(body AS TEXT), '$.request.network'), '') <> ''
    """,
)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the newest version. Raises `Unsupported` for a file of a newer trivet."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise Unsupported(
            f"the record file has version {version}, this trivet knows up to {len(MIGRATIONS)}",
            hint="start the newer trivet that wrote it",
        )
    for number, statement in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
