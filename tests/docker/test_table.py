"""docs/docker.md: its table is the routes, and each of them was used by the tests."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.docker.conftest import Tool
from tests.repo.tree import ROOT

from trivet.api.docker.application import ROUTES

ROW = re.compile(r"^\| ([A-Z*]+) ([^ |]+) \| ([^|]*) \|", re.MULTILINE)
LINE = re.compile(r"docker ([A-Z]+) (\S+) \?(\S*)$", re.MULTILINE)


def table() -> dict[tuple[str, str], set[str]]:
    """The documented routes, and the parameters of each."""
    text = (ROOT / "docs/docker.md").read_text()
    return {(method, path): set(re.findall(r"[\w-]+", parameters)) for method, path, parameters in ROW.findall(text)}


def shown(path: str) -> str:
    """A route's path as documented."""
    return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)


def test_the_table_is_the_routes() -> None:
    """Every route has its row with its parameters, and there is no other row."""
    assert table() == {(route.method, shown(route.path)): set(route.query) for route in ROUTES}


@pytest.mark.needs("root", "docker", "docker-registry")
def test_every_route_was_used(request: pytest.FixtureRequest, daemon: Daemon, trivet: Tool) -> None:
    """The tests of this directory used every route and every parameter of the table."""
    here = Path(__file__).parent
    ran = {item.path for item in request.session.items}
    if "PYTEST_XDIST_WORKER" in os.environ or not set(here.glob("test_*.py")) <= ran:
        pytest.skip("only after all the tests of this directory, in one process")
    used: dict[tuple[str, str], set[str]] = {}
    for method, path, parameters in LINE.findall(daemon.log.read_text(errors="replace")):
        for verb in (method, "*"):
            used.setdefault((verb, shown(path)), set()).update(filter(None, parameters.split(",")))
    missing = {key: parameters - used.get(key, set()) for key, parameters in table().items()}
    assert {key: names for key, names in missing.items() if names or key not in used} == {}
