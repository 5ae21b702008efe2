"""The repository runs on everybody's machine: it names no mirror and no directory of a developer's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.repo.tree import ROOT, holding

URL = re.compile(r"https?://(?:[^/@\s\"']*@)?([A-Za-z0-9.-]+)")
LOCAL = {"localhost", "127.0.0.1"}


def configurations() -> Iterator[str]:
    """Yield what this machine's apt, pip and npm are told about where to fetch from."""
    apt = Path("/etc/apt")
    for path in (*apt.glob("sources.list"), *apt.glob("sources.list.d/*"), *apt.glob("apt.conf.d/*")):
        yield path.read_text(errors="replace")
    yield subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    for path in (Path.home() / ".npmrc", Path("/etc/npmrc"), Path.home() / ".config/pip/pip.conf"):
        yield path.read_text(errors="replace") if path.is_file() else ""
    for name, value in os.environ.items():
        if name.lower().startswith(("pip_", "npm_config_", "uv_")):
            yield value


def hosts() -> list[str]:
    """Name the hosts in them, comments left out."""
    lines = (line for text in configurations() for line in text.splitlines())
    found = {host for line in lines if not line.lstrip().startswith(("#", "//")) for host in URL.findall(line)}
    return sorted(found - LOCAL)


def test_this_machine_has_a_mirror_to_look_for() -> None:
    """The next test can fail: some host is configured on this machine."""
    assert hosts()


@pytest.mark.parametrize("host", hosts())
def test_no_mirror_is_named(host: str) -> None:
    """No tracked file names a package mirror or registry of this machine's configuration."""
    assert holding(host.encode()) == []


def test_no_path_of_this_checkout() -> None:
    """No tracked file holds the path this checkout happens to have."""
    if len(ROOT.parts) < 3:
        pytest.skip(f"{ROOT} is too short a path to tell apart")
    assert holding(str(ROOT).encode()) == []
