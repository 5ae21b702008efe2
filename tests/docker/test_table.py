"""docs/docker.md: its tables are the routes and the bodies, and the tests used all of them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.docker.conftest import Tool
from tests.repo.tree import ROOT

from trivet.api.docker import field
from trivet.api.docker.application import ROUTES

ROW = re.compile(r"^\| ([A-Z*]+) ([^ |]+) \| ([^|]*) \|", re.MULTILINE)
FIELDS = re.compile(r"^\| (POST /\S+)(?: ([^ |]+))? \| ([A-Za-z][^|]*) \| ([^|]+) \|$", re.MULTILINE)
BODY = re.compile(r"docker body (\S+) (\S*)$", re.MULTILINE)
LINE = re.compile(r"docker ([A-Z]+) (\S+) \?(\S*)$", re.MULTILINE)


def table() -> dict[tuple[str, str], set[str]]:
    """The documented routes, and the parameters of each."""
    text = (ROOT / "docs/docker.md").read_text()
    text = text[: text.index("## Fields of bodies")]
    return {(method, path): set(re.findall(r"[\w-]+", parameters)) for method, path, parameters in ROW.findall(text)}


def fields() -> dict[str, dict[str, str]]:
    """The documented fields of each body, by its route, and what is said of each."""
    text = (ROOT / "docs/docker.md").read_text()
    found: dict[str, dict[str, str]] = {}
    for route, inside, names, words in FIELDS.findall(text[text.index("## Fields of bodies") :]):
        for name in names.split(", "):
            path = f"{inside}.{name}" if inside else name
            assert found.setdefault(route.removeprefix("POST "), {}).setdefault(path, words) is words, f"{path} twice"
    return found


def shown(path: str) -> str:
    """A route's path as documented."""
    return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)


def test_the_table_is_the_routes() -> None:
    """Every route has its row with its parameters, and there is no other row."""
    assert table() == {(route.method, shown(route.path)): set(route.query) for route in ROUTES}


def test_the_fields_are_the_bodies() -> None:
    """Every field that is understood has its row, and of every other one the table says that it has no effect."""
    understood = {shown(route.path): set(field.every(route.body)) for route in ROUTES if route.body}
    documented = {
        route: {path for path, words in names.items() if not words.startswith("no effect")}
        for route, names in fields().items()
    }
    assert documented == understood


@pytest.mark.needs("root", "docker", "docker-registry")
def test_every_route_was_used(request: pytest.FixtureRequest, daemon: Daemon, trivet: Tool) -> None:
    """The tests of this directory used every route and every parameter of the table."""
    _only_after_all(request)
    used: dict[tuple[str, str], set[str]] = {}
    for method, path, parameters in LINE.findall(daemon.log.read_text(errors="replace")):
        for verb in (method, "*"):
            used.setdefault((verb, shown(path)), set()).update(filter(None, parameters.split(",")))
    missing = {key: parameters - used.get(key, set()) for key, parameters in table().items()}
    assert {key: names for key, names in missing.items() if names or key not in used} == {}


@pytest.mark.needs("root", "docker", "docker-registry")
def test_every_field_was_sent(request: pytest.FixtureRequest, daemon: Daemon, trivet: Tool) -> None:
    """The tests of this directory sent every field of the table, in the body it is documented for."""
    _only_after_all(request)
    sent: dict[str, set[str]] = {}
    for route, names in BODY.findall(daemon.log.read_text(errors="replace")):
        place = re.sub(r"^/v\{version\}", "", route)
        sent.setdefault(place, set()).update(names.split(","))
    missing = {route: sorted(set(names) - sent.get(route, set())) for route, names in fields().items()}
    assert {route: names for route, names in missing.items() if names} == {}


def _only_after_all(request: pytest.FixtureRequest) -> None:
    here = Path(__file__).parent
    ran = {item.path for item in request.session.items}
    if "PYTEST_XDIST_WORKER" in os.environ or not set(here.glob("test_*.py")) <= ran:
        pytest.skip("only after all the tests of this directory, in one process")
