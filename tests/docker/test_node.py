"""dockerode, the library of node's world, unchanged: where node is there, and the library (`make node`)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.docker.conftest import IMAGE, Tool
from tests.repo.tree import ROOT

pytestmark = pytest.mark.needs("root", "docker", "node")
LIBRARY = ROOT / ".venv/node/node_modules/dockerode"


def test_dockerode(docker: Tool, tmp_path: Path) -> None:
    """Run, attach with half-close, exec, events, archives, builds and volumes, as the library does them."""
    if not LIBRARY.exists():
        pytest.skip("no dockerode: make node")
    (tmp_path / "Dockerfile").write_text(f'FROM {IMAGE}\nCMD ["true"]\n')
    command = ["node", str(Path(__file__).parent / "node/scenario.js"), docker.socket, IMAGE, str(tmp_path)]
    environment = {**os.environ, "DOCKERODE": str(LIBRARY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"]
