"""All attacks."""

from __future__ import annotations

from tests.gym import catalogue_host
from tests.gym.attack import Attack

ATTACKS: tuple[Attack, ...] = (*catalogue_host.ATTACKS,)
