"""Floods don't keep the engine from answering."""

from __future__ import annotations

import threading

import pytest
from tests.gym.attack import Attack, Proof, Weakening
from tests.gym.ring import Ring

FLOODS = {
    "processes": ("flood-processes", "100000"),
    "shared memory": ("flood-file", "/dev/shm/flood", "1000"),
    "descriptors": ("flood-descriptors", "/dev/null", "10000000"),
    "terminals": ("flood-descriptors", "/dev/ptmx", "3000"),
    "output": ("flood-output", "30"),
}


@pytest.mark.parametrize("what", FLOODS)
def test_the_engine_answers_during_a_flood(ring: Ring, what: str) -> None:
    """While a program takes all it can get, the engine answers others; afterwards nothing is left of it."""
    flood = Attack(
        name=what,
        row=22,
        reference="floods",
        tries=f"a flood of {what}",
        argv=FLOODS[what],
        proof=Proof.CHANGED,
        weak=Weakening(),
    )
    verdicts = []
    attack = threading.Thread(target=lambda: verdicts.append(ring.real(flood)))
    attack.start()
    answered = 0
    while attack.is_alive():
        assert ring.answers()
        answered += 1
        attack.join(0.01)
    assert answered > 1
    assert verdicts[0].damage == []
