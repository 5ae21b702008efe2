"""Record files of earlier versions."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from trivet.store.migration import MIGRATIONS
from trivet.store.record import Records


def test_the_network_an_instance_had_is_its_first(tmp_path: Path) -> None:
    """What was on network none, or on an internal one, must not be on bridge after an upgrade."""
    path = tmp_path / "record.db"
    old = sqlite3.connect(path)
    old.execute(MIGRATIONS[0])
    requests = {
        "a": {"image": "i", "network": "none"},
        "b": {"image": "i", "network": "back", "network_aliases": ["web"], "ip": "10.9.0.7"},
        "c": {"image": "i"},
    }
    for key, request in requests.items():
        body = json.dumps({"id": key, "request": request}).encode()
        old.execute("INSERT INTO document VALUES ('instance', ?, ?, ?)", (key, key, body))
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()
    records = Records(path)
    with records.transaction() as connection:
        rows = dict(connection.execute("SELECT id, body FROM document WHERE kind = 'instance'").fetchall())
    records.close()
    networks = {key: json.loads(body)["request"].get("networks") for key, body in rows.items()}
    assert networks == {
        "a": [{"network": "none", "aliases": [], "ip": "", "mac": ""}],
        "b": [{"network": "back", "aliases": ["web"], "ip": "10.9.0.7", "mac": ""}],
        "c": None,
    }
    assert all(isinstance(body, bytes) for body in rows.values())
