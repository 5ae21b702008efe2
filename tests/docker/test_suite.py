"""Tools that set up applications for people: testcontainers and docker-compose, unchanged, on a bridge network."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy
from tests.docker.conftest import IMAGE, Tool
from tests.native import compiled
from tests.repo.tree import ROOT

pytestmark = pytest.mark.needs("root", "docker")

SERVE = "echo page >/page; echo ready; exec httpd -f -p 80 -h /"


@pytest.fixture
def environment(docker: Tool, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What people set: where the engine is; without the reaper, whose image would come from a registry."""
    monkeypatch.setenv("DOCKER_HOST", docker.address)
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    with docker.inside():
        yield


def test_testcontainers(environment: None) -> None:
    """A container is waited for, asked at its mapped port, entered, found by its alias, and gone afterwards."""
    with (
        Network() as network,
        DockerContainer(IMAGE)
        .with_command(["sh", "-c", SERVE])
        .with_exposed_ports(80)
        .with_env("WORD", "hello")
        .with_network(network)
        .with_network_aliases("server")
        .waiting_for(LogMessageWaitStrategy("ready")) as server,
        DockerContainer(IMAGE).with_command("sleep 60").with_network(network) as client,
    ):
        with urlopen(f"http://127.0.0.1:{server.get_exposed_port(80)}/page", timeout=10) as answer:
            assert answer.read() == b"page\n"
        assert server.exec(["sh", "-c", "echo $WORD"]).output == b"hello\n"
        assert client.exec("wget -qO- http://server/page").output == b"page\n"
        docker = server.get_docker_client().client
        key = server.get_wrapped_container().id
    assert key not in [one.id for one in docker.containers.list(all=True)]


COMPOSE = f"""
version: "3.7"
services:
  db:
    image: {IMAGE}
    command: sh -c "sleep 0.5; {SERVE}"
    volumes: [data:/data]
    healthcheck: {{test: [CMD, test, -e, /page], interval: 200ms, retries: 50}}
    stop_grace_period: 0s
  web:
    image: {IMAGE}
    command: sh -c "wget -qO- http://db/page; exec sleep 600"
    stop_grace_period: 0s
    environment: {{WORD: one}}
    depends_on: {{db: {{condition: service_healthy}}}}
volumes: {{data: {{}}}}
"""


@pytest.fixture
def compose(docker: Tool, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """The docker-compose command for an application that goes afterwards."""
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    name = f"dc{os.urandom(3).hex()}"

    def run(*words: str) -> str:
        environment = {**os.environ, "DOCKER_HOST": docker.address, "DOCKER_CONFIG": str(docker.home)}
        environment["COMPOSE_API_VERSION"] = "1.40"  # docker-compose 1 asks for 1.38 otherwise, which is refused
        command = ["docker-compose", "-p", name, *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    yield run
    run("down", "-v", "-t", "0")


@pytest.mark.needs("docker-compose")
def test_docker_compose(compose: Callable[..., str], docker: Tool, tmp_path: Path) -> None:
    """An application comes up once its database is healthy, is looked into, changed and scaled; its labels are seen."""
    compose("up", "-d")
    shown = compose("ps")
    assert shown.count("Up") == 2
    assert "(healthy)" in shown
    assert "page" in compose("logs", "web")
    assert compose("exec", "-T", "web", "sh", "-c", "echo $WORD") == "one\n"
    before = compose("ps", "-q").split()
    (tmp_path / "docker-compose.yml").write_text(COMPOSE.replace("WORD: one", "WORD: two"))
    compose("up", "-d", "--scale", "web=2")
    assert compose("exec", "-T", "--index=2", "web", "sh", "-c", "echo $WORD") == "two\n"
    after = compose("ps", "-q").split()
    assert (len(after), len(set(before) & set(after))) == (3, 1)
    assert "com.docker.compose.project" in docker.ok("inspect", after[0])


def test_a_container_that_asks_the_engine(docker: Tool) -> None:
    """What Ryuk, Traefik, Portainer and runners of jobs do: the engine's socket is mounted, and answers inside."""
    program = compiled("inside", [ROOT / "tests/inside/inside.c"])
    mounts = ["-v", f"{program}:/inside:ro", "-v", f"{docker.socket}:/var/run/docker.sock"]
    line = ["run", "--rm", "-i", "--name", "asks", "--network", "none", *mounts, IMAGE, "/inside", "ask"]
    said = docker.ok(*line, "/var/run/docker.sock", input=b"GET /containers/json?all=1 HTTP/1.0\r\nHost: x\r\n\r\n")
    assert said.startswith("HTTP/1.0 200 OK")
    assert '"/asks"' in said
