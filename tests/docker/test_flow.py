"""What a CI runner does by the docker command, from the first network to the last clean-up; and macvlan."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docker.conftest import IMAGE, Tool

pytestmark = pytest.mark.needs("root", "docker")

SERVE = "mkdir /www; echo ready >/www/state; exec httpd -f -p 5432 -h /www"
HEALTH = [
    "--health-cmd",
    "wget -qO- http://localhost:5432/state",
    "--health-interval",
    "300ms",
    "--health-retries",
    "20",
]


def test_a_pipeline(docker: Tool, tmp_path: Path) -> None:
    """A service under its alias, an image with a cache, a job in a volume, artifacts, events, and nothing left."""
    mark = ["--label", "job=17"]
    docker.ok("network", "create", *mark, "ci-net")
    docker.ok("volume", "create", *mark, "ci-work")
    service = ["--name", "ci-db", "--network", "ci-net", "--network-alias", "db", *HEALTH]
    docker.ok("run", "-d", *mark, *service, IMAGE, "sh", "-c", SERVE)
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nARG REV\nCOPY job /bin/\nLABEL rev=$REV\n")
    (tmp_path / "job").write_text("#!/bin/sh\nset -e\nwget -qO /work/report http://db:5432/state\necho passed\n")
    (tmp_path / "job").chmod(0o755)
    build = ["build", "--build-arg", "REV=abc", *mark, "-t", "ci:17", "--cache-from", "ci:16", str(tmp_path)]
    docker.ok(*build)
    assert docker.ok("inspect", "-f", "{{.Config.Labels.rev}} {{.Config.Labels.job}}", "ci:17") == "abc 17"
    watched = ["events", "--since", "30m", "--filter", "label=job=17", "--format", "{{.Action}}", "--until"]
    health = "{{.State.Health.Status}}"
    while docker.ok("inspect", "-f", health, "ci-db") == "starting":
        docker.ok("exec", "ci-db", "sleep", "0.1")
    assert docker.ok("inspect", "-f", health, "ci-db") == "healthy"
    job = ["create", *mark, "--name", "ci-job", "--network", "ci-net", "-v", "ci-work:/work", "-w", "/work", "-i"]
    docker.ok(*job, "ci:17", "sh", "-e")
    done = docker.run("start", "-a", "-i", "ci-job", input=b"job\nls /work\nexit 3\n")
    assert (done.returncode, done.stdout) == (3, b"passed\nreport\n")
    docker.ok("cp", "ci-job:/work/report", tmp_path / "artifact")
    assert (tmp_path / "artifact").read_text() == "ready\n"
    told = docker.ok(*watched, f"{time.time():.6f}").splitlines()  # "0s" would be cut to whole seconds
    assert {"create", "start", "die", "health_status: healthy"} <= set(told)
    found = docker.ok("ps", "-aq", "--filter", "label=job=17").split()
    assert len(found) == 2
    docker.ok("rm", "-f", "-v", *found)
    version = docker.ok("version", "-f", "{{.Server.APIVersion}}").split(".")
    named = ["--filter", "all=1"] if int(version[1]) >= 42 else []  # before, those with a name went anyway
    docker.ok("volume", "prune", "-f", *named, "--filter", "label=job=17")
    docker.ok("network", "prune", "-f", "--filter", "label=job=17")
    docker.ok("image", "prune", "-af", "--filter", "label=job=17")
    for noun in ("volume", "network", "image"):
        assert docker.ok(noun, "ls", "-q", "--filter", "label=job=17") == ""


@pytest.fixture
def parent() -> Iterator[str]:
    """An interface of the host for networks to lie on."""
    ends = ["ip", "link", "add", "tvflow0", "type", "veth", "peer", "name", "tvflow1"]
    subprocess.run(ends, check=True)
    for end in ("tvflow0", "tvflow1"):
        subprocess.run(["ip", "link", "set", end, "up"], check=True)
    yield "tvflow0"
    subprocess.run(["ip", "link", "del", "tvflow0"], check=True)


def test_macvlan(trivet: Tool, parent: str) -> None:
    """A network on an interface of the host is made, shown and used as Docker's; an unknown driver isn't found."""
    place = ["--subnet", "10.216.3.0/24", "--gateway", "10.216.3.1", "-o", f"parent={parent}"]
    trivet.ok("network", "create", "-d", "macvlan", *place, "flow-mac")
    (shown,) = json.loads(trivet.ok("network", "inspect", "flow-mac"))
    assert (shown["Driver"], shown["Options"]) == ("macvlan", {"parent": parent})
    seen = trivet.ok("run", "--rm", "--network", "flow-mac", "--ip", "10.216.3.9", IMAGE, "ip", "-4", "addr")
    assert "inet 10.216.3.9/24" in seen
    trivet.ok("network", "rm", "flow-mac")
    assert "could not find plugin nothing" in trivet.fails("network", "create", "-d", "nothing", "flow-mac")
