"""The OpenAPI document: it describes every route, and answers have the shapes it promises."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Daemon

from trivet.api.native.application import ROUTES

DOCS = Path(__file__).parents[2] / "docs" / "api.md"


def _get(daemon: Daemon, path: str, method: str = "GET", body: bytes = b"") -> tuple[int, str, Any]:
    """Ask the engine as any HTTP client would."""
    connection = http.client.HTTPConnection("trivet")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(daemon.socket))
    connection.request(method, path, body=body or None)
    answer = connection.getresponse()
    raw = answer.read()
    connection.close()
    kind = answer.headers.get_content_type()
    return answer.status, kind, json.loads(raw) if "json" in kind and raw else raw


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {value["$ref"]} if "$ref" in value else set().union(*map(_references, value.values()), set())
    return set().union(*map(_references, value), set()) if isinstance(value, list) else set()


def test_the_document_is_complete_and_refers_to_nothing_missing(daemon: Daemon) -> None:
    """Every route is a path of it, and every reference has its component."""
    status, kind, document = _get(daemon, "/v1/openapi.json")
    assert (status, kind, document["openapi"]) == (200, "application/json", "3.1.0")
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    components = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert _references(document) <= components


@pytest.mark.parametrize("path", ["info", "df", "instances?all=1", "images", "volumes", "networks", "stats"])
def test_answers_are_json(daemon: Daemon, path: str) -> None:
    """The read-only routes answer 200 with JSON."""
    status, kind, _ = _get(daemon, f"/v1/{path}")
    assert (status, kind) == (200, "application/json")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("GET", "/v1/nothing", b"", 404, "not-found"),
        ("GET", "/v1/instances/none", b"", 404, "not-found"),
        ("POST", "/v1/instances", b"{", 400, "invalid-argument"),
        ("POST", "/v1/instances", b'{"image": 5}', 400, "invalid-argument"),
        ("POST", "/v1/instances", b'{"image": "x", "cpus": "many"}', 400, "invalid-argument"),
        ("GET", "/v1/instances?filter=nosuch=1", b"", 400, "invalid-argument"),
        ("DELETE", "/v1/networks/bridge", b"", 409, "conflict"),
        ("POST", "/v1/prune", b'{"kinds": ["everything"]}', 400, "invalid-argument"),
    ],
)
def test_errors_are_problem_documents(
    daemon: Daemon, method: str, path: str, body: bytes, status: int, kind: str
) -> None:
    """Each has the status of its kind and one sentence."""
    answered, content_type, problem = _get(daemon, path, method, body)
    assert (answered, content_type) == (status, "application/problem+json")
    assert problem["kind"] == kind
    assert problem["message"]


def test_the_reference_page_names_every_route() -> None:
    """docs/api.md and the route table don't drift apart."""
    text = DOCS.read_text()
    for route in ROUTES:
        last = route.path.removeprefix("/v1").replace("/{ref}", "").rsplit("/", 1)[-1]
        assert last in text, route.path
