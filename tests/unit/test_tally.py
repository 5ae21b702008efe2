"""What is promised to all that run, added up as it changes, is what adding up anew would give."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trivet.client.schema import InstanceRequest
from trivet.engine.capacity.sample import promise_of
from trivet.engine.capacity.tally import Tally
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.isolation.plan import Level, Limits, Log, Plan, Program, Root, Security
from trivet.store.record import Records, Table

KEYS = ("a", "b", "c")

STEPS = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.sampled_from(("write", "watch", "leave", "remove")),
        st.sampled_from((Word.CREATED, Word.RUNNING, Word.PAUSED, Word.EXITED)),
        st.sampled_from((Limits(), Limits(memory=900, memory_reservation=300), Limits(memory=700, cpus=0.1))),
    ),
    max_size=20,
)


def record_of(key: str, word: Word, limits: Limits) -> InstanceRecord:
    """Make a container's record."""
    plan = Plan(
        id=key,
        name=key,
        level=Level.CONTAINER,
        program=Program(argv=("/bin/true",)),
        root=Root(form="mount", lowers=(), upper=""),
        directory="/nowhere",
        cgroup=key,
        log=Log(path=""),
        security=Security(capabilities=()),
        limits=limits,
    )
    wish = InstanceRequest(image="i", name=key)
    return InstanceRecord(id=key, name=key, request=wish, image="i", image_id="i", plan=plan, word=word)


def compare(tally: Tally, table: Table[InstanceRecord], watched: set[str]) -> None:
    """Add up anew, and compare."""
    tally.look()
    there = [each for each in table.all() if each.id in watched and each.word in (Word.RUNNING, Word.PAUSED)]
    found = [promise_of(each) for each in there]
    assert tally.maximum == sum(each.maximum for each in found)
    assert tally.processors == round(sum(each.processors for each in found), 6)
    assert tally.minimums == {each.id: each.minimum for each in found if each.minimum}


@settings(max_examples=60, deadline=None)
@example(steps=[("b", "write", Word.RUNNING, Limits(memory=700)), ("b", "watch", Word.RUNNING, Limits())])
@given(steps=STEPS)
def test_sums_follow_every_change(steps: list[tuple[str, str, Word, Limits]]) -> None:
    """Written, watched, left, removed, in any order and looked at after each step: nothing counts twice or stays.

    Who is no longer watched has its end recorded first, as the steward does.
    """
    with tempfile.TemporaryDirectory() as place, closing(Records(Path(place, "record.db"))) as records:
        table, watched = records.table("instance", InstanceRecord), {"a"}
        table.insert("a", record_of("a", Word.RUNNING, Limits(memory=500, cpus=0.3)), name="a")
        tally = Tally(table, watched)  # of an engine that finds somebody running
        compare(tally, table, watched)
        for key, act, word, limits in steps:
            if act == "write":
                table.put(key, record_of(key, word, limits), name=key)
            elif act == "watch":
                watched.add(key)
            elif act == "remove":
                table.delete(key)
            elif known := table.get(key):
                table.update(key, msgspec.structs.replace(known, word=Word.EXITED))
                watched.discard(key)
            compare(tally, table, watched)
