"""Records: what is remembered never differs from the file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from trivet.base.error import AlreadyExists, NotFound
from trivet.store.record import Records, Table


class Note(msgspec.Struct, frozen=True):
    """A record."""

    text: str


class Abandoned(Exception):
    """Whoever worked in a transaction gave up."""


def open_tables(path: Path) -> tuple[Records, Table[Note], Table[Note]]:
    """Open a file and two tables of the same kind."""
    records = Records(path / "record.db")
    return records, records.table("note", Note), records.table("note", Note)


def test_what_one_table_writes_the_other_sees(tmp_path: Path) -> None:
    """Tables of one kind share what they remember, and another file opened later says the same."""
    records, one, other = open_tables(tmp_path)
    one.insert("a", Note("first"), name="alpha")
    assert other.get("a") == other.by_name("alpha") == other.find("a") == Note("first")
    other.update("a", Note("second"))
    other.put("a", Note("third"), name="beta")
    assert one.by_name("alpha") is None
    assert one.by_name("beta") == Note("third")
    assert one.all() == [Note("third")]
    records.close()
    records, one, other = open_tables(tmp_path)
    assert one.by_name("beta") == Note("third")
    assert one.delete("a")
    assert other.get("a") is None
    assert other.by_name("beta") is None
    with pytest.raises(NotFound):
        other.find("a")
    records.close()


def give_up(records: Records, notes: Table[Note]) -> None:
    """Write all sorts of things, and take them back."""
    with records.transaction():
        notes.update("a", Note("lost"))
        notes.insert("b", Note("lost"), name="beta")
        notes.delete("a")
        raise Abandoned


def test_what_a_transaction_takes_back_is_forgotten(tmp_path: Path) -> None:
    """After a rollback nothing of what was written in it is remembered."""
    records, one, _ = open_tables(tmp_path)
    one.insert("a", Note("kept"), name="alpha")
    with pytest.raises(Abandoned):
        give_up(records, one)
    assert one.by_name("alpha") == Note("kept")
    assert one.get("b") is None
    assert one.by_name("beta") is None
    records.close()


def test_a_taken_name_changes_nothing(tmp_path: Path) -> None:
    """A record refused for its name isn't remembered under its key either."""
    records, one, _ = open_tables(tmp_path)
    one.insert("a", Note("first"), name="alpha")
    for write in (one.insert, one.put):
        with pytest.raises(AlreadyExists):
            write("b", Note("second"), name="alpha")
    assert one.get("b") is None
    assert one.by_name("alpha") == Note("first")
    records.close()


def test_a_key_goes_before_a_name(tmp_path: Path) -> None:
    """Who is named as another's key is found by that only when the other isn't there."""
    records, one, _ = open_tables(tmp_path)
    one.insert("a", Note("by key"), name="b")
    one.insert("b", Note("by its key"), name="c")
    assert one.find("b") == Note("by its key")
    one.delete("b")
    assert one.find("b") == Note("by key")
    records.close()
