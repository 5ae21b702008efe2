"""All attacks."""

from __future__ import annotations

from tests.gym import catalogue_host, catalogue_identity, catalogue_kernel, catalogue_race
from tests.gym.attack import Attack

ATTACKS: tuple[Attack, ...] = (
    *catalogue_host.ATTACKS,
    *catalogue_kernel.ATTACKS,
    *catalogue_identity.ATTACKS,
    *catalogue_race.ATTACKS,
)
