"""The docker command of today with its plug-ins buildx and compose, where Debian's newest suite is to be had."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests import newer
from tests.docker.conftest import Tool

PLUGINS = "/usr/libexec/docker/cli-plugins"
Build = Callable[..., "subprocess.CompletedProcess[bytes]"]


@dataclass(frozen=True)
class Newest(Tool):
    """That command, for one engine."""

    program: str = "docker"

    def command(self, *arguments: str | Path) -> list[str | Path]:
        """The whole command line."""
        return [self.program, "--host", self.address, *arguments]

    @property
    def env(self) -> dict[str, str]:
        """Whatever builder the engine says it has."""
        return {key: value for key, value in super().env.items() if key != "DOCKER_BUILDKIT"}

    def said(self, *arguments: str | Path, **more: Any) -> str:
        """Run the command, which must succeed; all that it said."""
        done = self.run(*arguments, timeout=90, **more)
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{said}"
        return said


@pytest.fixture(scope="session")
def newest(trivet: Tool, tmp_path_factory: pytest.TempPathFactory) -> Newest:
    """The command, pointed at trivet."""
    program = newer.program("docker-cli", "/usr/bin/docker")
    home = tmp_path_factory.mktemp("newest")
    (home / "cli-plugins").mkdir()
    for plugin in ("docker-buildx", "docker-compose"):
        (home / "cli-plugins" / plugin).symlink_to(newer.program(plugin, f"{PLUGINS}/{plugin}"))
    return Newest(address=trivet.address, name="trivet", home=home, program=str(program))
