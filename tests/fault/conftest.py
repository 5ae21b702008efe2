"""An engine of each test's own, since these tests kill it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon

IMAGE = "busybox:test"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Daemon]:
    """A running engine that has the busybox image, and may be killed."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        engine = Daemon(tmp_path / "root", run)
        undo.callback(engine.clean)
        engine.start()
        engine.ok("import", "-q", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
        yield engine
