"""Versions of the API, and what an engine without swarm, plugins and BuildKit answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.docker.conftest import Tool
from tests.docker.request import ask, value

pytestmark = pytest.mark.needs("root", "docker")

MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)


def test_versions(docker: Tool) -> None:
    """Versions are told in ping's head and by prefix; too old and too new ones are refused in Docker's words."""
    content, answer = ask(docker, "GET", "/_ping")
    assert content == b"OK"
    assert answer.headers["Docker-Experimental"] == str(docker.name == "trivet").lower()
    assert answer.headers["Ostype"] == "linux"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache, no-store, must-revalidate"
    newest = answer.headers["Api-Version"]
    content, answer = ask(docker, "HEAD", "/_ping")
    assert (content, answer.headers["Api-Version"], answer.headers["Content-Length"]) == (b"", newest, "0")
    assert value(docker, "GET", f"/v{newest}/version")["ApiVersion"] == newest
    assert ask(docker, "GET", f"/v{newest}/_ping")[0] == b"OK"
    assert value(docker, "GET", "/v1.40/info")["OSType"] == "linux"
    oldest = value(docker, "GET", "/version")["MinAPIVersion"]
    content, answer = ask(docker, "GET", "/v1.99/info", None, 400)
    assert answer.headers["Api-Version"] == newest
    assert f"client version 1.99 is too new. Maximum supported API version is {newest}".encode() in content
    for version in ("1.2", "1"):
        words = f"client version {version} is too old. Minimum supported API version is {oldest}, please upgrade"
        assert words.encode() in ask(docker, "GET", f"/v{version}/info", None, 400)[0]
    for path in ("/v1.40/nonsense", "/vx/info", "/nonsense"):
        assert value(docker, "GET", path, None, 404) == {"message": "page not found"}
    assert value(docker, "DELETE", "/info", None, 404) == {"message": "page not found"}


def test_versions_below(trivet: Tool) -> None:
    """1.40 is the oldest version."""
    assert value(trivet, "GET", "/version")["MinAPIVersion"] == "1.40"
    told = value(trivet, "GET", "/v1.39/info", None, 400)["message"]
    assert told.startswith("client version 1.39 is too old. Minimum supported API version is 1.40,")


def test_the_oldest_version_can_be_set(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOCKER_MIN_API_VERSION lowers it, as at dockerd, but not without end."""
    engine = Daemon(short_path / "root", short_path / "run")
    engine.run.mkdir()
    monkeypatch.setenv("DOCKER_MIN_API_VERSION", "1.12")
    with pytest.raises(RuntimeError, match=r"DOCKER_MIN_API_VERSION cannot be '1\.12'"):
        engine.start()
    monkeypatch.setenv("DOCKER_MIN_API_VERSION", "1.30")
    engine.start()
    try:
        tool = Tool(address=f"unix://{engine.run}/docker.sock", name="trivet", home=short_path)
        assert value(tool, "GET", "/v1.30/version")["MinAPIVersion"] == "1.30"
        assert "1.29 is too old" in value(tool, "GET", "/v1.29/version", None, 400)["message"]
    finally:
        engine.clean()


SWARM = """
GET /swarm
GET /swarm/unlockkey
POST /swarm/unlock
GET /services
GET /services/x
GET /services/x/logs
POST /services/create
POST /services/x/update
DELETE /services/x
GET /nodes
GET /nodes/x
POST /nodes/x/update
DELETE /nodes/x
GET /tasks
GET /tasks/x
GET /tasks/x/logs
GET /secrets
GET /secrets/x
POST /secrets/create
POST /secrets/x/update
DELETE /secrets/x
GET /configs
GET /configs/x
POST /configs/create
POST /configs/x/update
DELETE /configs/x
"""


def test_no_swarm(docker: Tool) -> None:
    """An engine without swarm says so, on every route of one."""
    for line in SWARM.strip().splitlines():
        method, path = line.split()
        body = {"UnlockKey": "x"} if path == "/swarm/unlock" else {}
        query = {"version": "1"} if path.endswith("/update") else {"stdout": "1"} if path.endswith("/logs") else {}
        assert value(docker, method, path, body, 503, **query) == {"message": MANAGER}, line
    assert value(docker, "POST", "/swarm/leave", None, 503) == {"message": "This node is not part of a swarm"}
    assert value(docker, "POST", "/swarm", {}, 404) == {"message": "page not found"}


def test_no_plugins(docker: Tool) -> None:
    """There are no plugins, and BuildKit's channel is only for those who upgrade."""
    assert value(docker, "GET", "/plugins") == []
    assert value(docker, "GET", "/plugins/privileges", remote="x") == []
    gone = {"message": 'plugin "x" not found'}
    assert value(docker, "GET", "/plugins/x/json", None, 404) == gone
    assert value(docker, "DELETE", "/plugins/x", None, 404) == gone
    for verb in ("disable", "set"):
        assert value(docker, "POST", f"/plugins/x/{verb}", [], 404) == gone
    assert value(docker, "POST", "/session", None, 400) == {"message": "no upgrade proto in request"}


def test_what_stays_absent(trivet: Tool) -> None:
    """Nothing of a swarm can be made here, and other absent things are refused with a reason."""
    value(trivet, "POST", "/swarm/update", {}, 503)
    for path in ("/swarm/init", "/swarm/join", "/plugins/pull", "/plugins/create"):
        assert value(trivet, "POST", path, {}, 501)["message"]
    for verb in ("enable", "push", "upgrade"):
        value(trivet, "POST", f"/plugins/x/{verb}", None, 404)
    value(trivet, "POST", "/grpc", None, 400)
    assert value(trivet, "GET", "/images/search", None, 501)["message"]
