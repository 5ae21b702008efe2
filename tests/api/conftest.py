"""An image for the command's tests."""

from __future__ import annotations

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon


@pytest.fixture(scope="session")
def busybox(daemon: Daemon) -> str:
    """The name of an image with a shell and the usual tools."""
    daemon.ok("import", "-q", "-c", 'CMD ["sh"]', "-", "busybox:test", input=busybox_tar())
    return "busybox:test"
