"""A workshop for the tests of real builds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.build.workshop import Workshop, opened


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A builder for the tests of one file; each test's Dockerfiles are its own."""
    run = Path(tempfile.mkdtemp(prefix="tvb", dir="/tmp"))
    umask = os.umask(0o077)  # the engine's
    try:
        with opened(tmp_path_factory.mktemp("workshop"), run) as made:
            yield made
    finally:
        os.umask(umask)
        shutil.rmtree(run, ignore_errors=True)
