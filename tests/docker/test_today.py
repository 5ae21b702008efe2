"""Tools of today, unchanged: compose 2, and what editors set up development containers with."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.docker.conftest import IMAGE
from tests.docker.newest import Newest
from tests.docker.newest import newest as newest
from tests.repo.tree import ROOT

pytestmark = pytest.mark.needs("root", "docker")
DEVCONTAINER = ROOT / ".venv/node/node_modules/.bin/devcontainer"
APPLICATION = """
services:
  web:
    build: {context: ., args: {WORD: built}}
    image: today-web:1
    command: sh -c 'echo up; exec sleep 600'
    healthcheck: {test: ["CMD", "true"], interval: 1s}
    volumes: ["data:/d", "./host:/host:ro"]
    deploy: {resources: {limits: {memory: 64M}}}
  job:
    build: {context: ., dockerfile: second, additional_contexts: {first: "service:web"}}
    image: today-job:1
    command: sleep 600
    depends_on: {web: {condition: service_healthy}}
    networks: [default, other]
    configs: [word]
    secrets: [hush]
volumes: {data: {}}
networks: {other: {}}
configs: {word: {content: "of the file"}}
secrets: {hush: {file: ./hush}}
"""


def test_compose(newest: Newest, tmp_path: Path) -> None:
    """Build, with a service that begins with another one's image; up, exec, run, scale, logs, pause, cp, down."""
    files = {"compose.yaml": APPLICATION, "hush": "secret\n", "second": "FROM first\nRUN cat /word > /again\n"}
    files["Dockerfile"] = f"FROM {IMAGE}\nARG WORD\nRUN echo $WORD > /word\n"
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "host").mkdir()
    (tmp_path / "host/f").write_text("of the host\n")

    def compose(*words: str) -> str:
        return newest.said("compose", "--project-directory", tmp_path, "-p", "today", *words)

    try:
        compose("build")
        compose("up", "-d", "--wait")
        said = compose(
            "exec", "-T", "job", "sh", "-c", "cat /again /word /run/secrets/hush; nslookup web; cat /proc/1/cmdline"
        )
        assert "built" in said
        assert "secret" in said
        assert compose("exec", "-T", "web", "cat", "/host/f") == "of the host\n"
        assert "of the file" in compose("run", "--rm", "-T", "job", "cat", "/word")
        assert json.loads(compose("ps", "--format", "json", "web"))["Health"] == "healthy"
        compose("up", "-d", "--scale", "job=2")
        assert len(compose("ps", "-q", "job").split()) == 2
        compose("restart", "-t", "0", "job")
        assert "web-1  | up" in compose("logs", "web")
        assert " / 64MiB" in compose("stats", "--no-stream", "web")
        compose("pause", "web")
        compose("unpause", "web")
        compose("cp", "job:/again", str(tmp_path / "copied"))
        assert (tmp_path / "copied").read_text() == "built\n"
        assert "years" not in compose("images")
        compose("kill", "job")
    finally:
        compose("down", "-v", "-t", "0", "--rmi", "local")
    assert newest.ok("ps", "-aq", "--filter", "label=com.docker.compose.project=today") == ""


@pytest.mark.needs("node")
def test_development_container(newest: Newest, tmp_path: Path) -> None:
    """`devcontainer up`, again, `exec` and `build`: an image with a feature, a user, hooks, a volume."""
    if not DEVCONTAINER.exists():
        pytest.skip("no @devcontainers/cli: make node")
    home = tmp_path / "work/.devcontainer"
    (home / "feature").mkdir(parents=True)
    (home / "Dockerfile").write_text(
        f"FROM {IMAGE}\nARG WORD\nRUN echo $WORD > /word; mkdir -m 1777 /home; chmod 1777 /tmp\n"
    )
    (home / "feature/install.sh").write_text("#!/bin/sh\necho feature $WISH > /feature\n")
    wish = {"type": "string", "default": "none"}
    (home / "feature/devcontainer-feature.json").write_text(
        json.dumps({"id": "feature", "version": "1.0.0", "name": "f", "options": {"wish": wish}})
    )
    (home / "devcontainer.json").write_text(
        json.dumps(
            {
                "build": {"dockerfile": "Dockerfile", "args": {"WORD": "built"}},
                "features": {"./feature": {"wish": "granted"}},
                "remoteUser": "user",
                "postCreateCommand": "echo created > /tmp/created",
                "mounts": ["source=today-v,target=/v,type=volume"],
                "containerEnv": {"GIVEN": "1"},
                "init": True,
                "runArgs": ["--name", "today-dev", "--network", "none"],
            }
        )
    )
    (tmp_path / "work/file").write_text("of the work")
    environment = {**newest.env, "DOCKER_HOST": newest.address, "TMPDIR": str(tmp_path)}

    def devcontainer(verb: str, *words: str) -> str:
        places = ["--workspace-folder", str(tmp_path / "work"), "--docker-path", newest.program]
        line = ["node", str(DEVCONTAINER), verb, *places, *words]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    try:
        made = json.loads(devcontainer("up").splitlines()[-1])
        assert made["outcome"] == "success"
        said = devcontainer("exec", "sh", "-c", "cat /word /feature /tmp/created; id -un; echo $GIVEN; cat file; pwd")
        assert said == "built\nfeature granted\ncreated\nuser\n1\nof the work/workspaces/work\n"
        assert json.loads(devcontainer("up").splitlines()[-1])["containerId"] == made["containerId"]
        devcontainer("build", "--image-name", "today-dev:1")
        assert newest.ok("inspect", "-f", '{{index .Config.Labels "devcontainer.metadata"}}', "today-dev:1")
    finally:
        newest.run("rm", "-fv", "today-dev")
        newest.run("volume", "rm", "today-v")
        newest.run("rmi", "today-dev:1")


def test_run_and_look(newest: Newest) -> None:
    """The command's own views of today: `image ls --tree`, `system df`, `info`, `version`, `stats`, `events`."""
    newest.ok("run", "-d", "--name", "looked", "--network", "none", IMAGE, "sleep", "600")
    assert IMAGE in newest.said("image", "ls", "--tree")
    dated = ("build", "-q", "--build-arg", "SOURCE_DATE_EPOCH=0", "-")  # a step of no date at all is listed, too
    newest.ok(*dated, input=f"FROM {IMAGE}\nRUN echo dated > /dated\n".encode())
    assert "Build Cache" in newest.ok("system", "df")
    assert "CACHE ID" in newest.ok("system", "df", "-v")
    assert "Runtimes:" in newest.ok("info")
    assert "Server: trivet" in newest.ok("version")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    assert f" / {total}" in newest.ok("stats", "--no-stream", "looked")
    assert "container start" in newest.ok("events", "--since", "5m", "--until", "0s", "--filter", "container=looked")
    newest.ok("rm", "-f", "looked")
