"""Every attack works where the door was opened for it, and fails against trivet as everybody gets it."""

from __future__ import annotations

import pytest
from tests.gym.attack import Attack
from tests.gym.catalogue import ATTACKS
from tests.gym.ring import Ring

MISSING = ("Function not implemented", "No such file or directory", "No such device")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(ring: Ring, attack: Attack) -> None:
    """An attack that works against a weakened set-up fails against the real one, and leaves the host as it was."""
    weakened = ring.weakened(attack)
    if attack.perhaps and not weakened.escaped and any(word in weakened.outcome.output for word in MISSING):
        pytest.skip(f"this kernel has nothing to attack there: {weakened.outcome.output.strip()}")
    assert weakened.escaped, f"proves nothing, as it fails with the door open, too: {weakened.outcome}"
    real = ring.real(attack)
    assert not real.escaped, f"got out: {real.outcome}"
    assert real.damage == []
