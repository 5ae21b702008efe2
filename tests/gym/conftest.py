"""One little host and one engine for all attacks of a worker."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.gym.host import Host
from tests.gym.program import build
from tests.gym.ring import Ring
from tests.gym.subject.runtime import Runtime
from tests.gym.subject.trivet import Trivet


@pytest.fixture(scope="session")
def ring() -> Iterator[Ring]:
    """Where attacks take place: trivet's engine and its runtime, on a host of their own."""
    with ExitStack() as undo:
        directory = Path(tempfile.mkdtemp(prefix="tg", dir="/tmp"))
        undo.callback(shutil.rmtree, directory, True)
        host = undo.enter_context(Host(build(directory)))
        engine = Trivet()
        runtime = Runtime("trivet-runtime", Path(sys.executable).with_name("trivet-runtime"))
        for subject in (engine, runtime):
            subject.open(host, directory / subject.name)
            undo.callback(subject.close)
        directory.chmod(0o755)  # what is inside is to be safe by itself
        yield Ring(host, directory, engine, runtime)
