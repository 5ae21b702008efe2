"""A little of the storm that `python -m tests.image.storm` makes for an hour."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.image.storm import storm


@pytest.mark.timeout(120)
def test_every_image_survives_until_it_is_deleted(tmp_path: Path) -> None:
    """Four clients push, read, delete and misbehave while garbage goes; all images are whole, also after kills."""
    done = storm(tmp_path / "served", 5, turn=2)
    assert done.kills > 1
    assert done.images > 0
    assert done.read > done.images
    assert done.actions > 40
