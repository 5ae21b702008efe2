"""`trivet compose` as people of docker compose type it: the commands besides up and down, and rarer keys come true."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.api.test_compose import Application, app  # noqa: F401
from tests.runtime import until

PAIR = """
services:
  web:
    image: IMAGE
    init: true
    command: sh -c "echo ready; exec sleep 600"
    volumes: [data:/data]
    expose: ["8080", 9000-9001/udp]
    umask: "0027"
  db: {image: IMAGE, init: true, command: sleep 600}
volumes: {data: {}}
"""


def test_making_without_starting(app: Application) -> None:  # noqa: F811
    """`create` makes what `up` would start, `scale` changes how many, `down SERVICE` takes one service away."""
    app.write(PAIR)
    app.ok("create")
    assert app.instances() == {"db-1": "created", "web-1": "created"}
    app.ok("start", "--wait")
    app.ok("scale", "web=3")
    assert app.instances() == dict.fromkeys(("web-1", "web-2", "web-3", "db-1"), "running")
    app.ok("scale", "web=1")
    assert sorted(app.instances()) == ["db-1", "web-1"]
    app.ok("down", "-t", "0", "db")
    assert sorted(app.instances()) == ["web-1"]
    assert f"{app.name}_default" in app.daemon.ok("network", "ls")


def test_files_go_in_and_out(app: Application, tmp_path: Path) -> None:  # noqa: F811
    """`cp` copies to and from a service, with --all to every instance; `export` and `commit` take its root along."""
    app.write(PAIR)
    app.ok("up", "-d", "--scale", "web=2")
    (tmp_path / "note").write_text("hello")
    app.ok("cp", "--all", str(tmp_path / "note"), "web:/note")
    for index in ("1", "2"):
        assert app("exec", "-T", "--index", index, "web", "cat", "/note").stdout == b"hello"
    app.ok("cp", "--index", "2", "web:/note", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "hello"
    app.ok("export", "-o", str(tmp_path / "web.tar"), "web")
    assert b"hello" in (tmp_path / "web.tar").read_bytes()
    name = f"made-{app.name}:1"
    app.ok("commit", "-m", "a note", "web", name)
    try:
        assert app.daemon.ok("run", "--rm", name, "cat", "/note") == "hello"
    finally:
        app.daemon.ok("rmi", name)


def test_looking_at_an_application(app: Application) -> None:  # noqa: F811
    """ps, ls, images, volumes, stats, config and events tell what there is, for programs and for people."""
    app.write(PAIR)
    app.ok("up", "-d")
    assert app.ok("ps", "--services").split() == ["db", "web"]
    assert app.ok("ps", "--status", "exited", "-q") == ""
    assert app.name in app.ok("ls", "-q", "--filter", f"name={app.name}").split()
    assert app.ok("volumes", "-q").split() == [f"{app.name}_data"]
    rows = [json.loads(line) for line in app.ok("stats", "--no-stream", "--format", "json").splitlines()]
    assert {row["name"] for row in rows} == {f"{app.name}-db-1", f"{app.name}-web-1"}
    assert len(app.ok("images", "-q").split()) == 1
    labels = app.daemon.client.instances.get(f"{app.name}-web-1").labels
    assert app.ok("config", "--hash", "web").split() == ["web", labels["com.docker.compose.config-hash"]]
    assert json.loads(app.ok("convert", "--format", "json"))["services"]["web"]["expose"] == ["8080", "9000-9001/udp"]
    happened = app.ok("events", "--since", "10m", "--until", "0s", "web")
    assert "instance start" in happened
    assert "db-1" not in happened
    assert app("version").returncode == 0


def test_files_are_checked_without_secrets(app: Application) -> None:  # noqa: F811
    """`config` needs no variable that only holds a secret; `up` does, and names it."""
    app.write("services: {web: {image: IMAGE, secrets: [key]}}\nsecrets: {key: {environment: NOT_THERE}}")
    assert app("config", "-q").returncode == 0
    assert b"NOT_THERE is not set" in app("up", "-d").stderr


def test_waiting_for_an_end(app: Application) -> None:  # noqa: F811
    """`wait` prints exit codes and ends with one; with --down-project nothing is left."""
    app.write(
        'services: {job: {image: IMAGE, command: sh -c "exit 5"}, web: {image: IMAGE, init: true, command: sleep 600}}'
    )
    app.ok("up", "-d")
    done = app("wait", "--down-project", "job")
    assert (done.stdout, done.returncode) == (b"5\n", 5)
    assert app.instances() == {}


def test_rarer_keys_come_true(app: Application) -> None:  # noqa: F811
    """A umask, exposed ports, other names by links, and Docker's socket of the engine are in the instance."""
    app.write(PAIR.replace("  db: {", "  db: {links: ['web:front'], use_api_socket: true, "))
    app.ok("up", "-d")
    seen = app.ok("exec", "-T", "web", "sh", "-c", "umask; cat /proc/1/status | grep Umask")
    assert "Umask:\t0027" in seen
    request = app.daemon.client.instances.get(f"{app.name}-web-1").request
    assert request.exposed == ["8080/tcp", "9000/udp", "9001/udp"]
    assert app("exec", "-T", "db", "nslookup", "front").returncode == 0
    seen = app.ok("exec", "-T", "db", "stat", "-L", "-c", "%F %i", "/var/run/docker.sock")
    assert seen.split() == ["socket", str((app.daemon.run / "docker.sock").stat().st_ino)]


def test_steps_before_a_start(app: Application) -> None:  # noqa: F811
    """A step of pre_start has the service's volumes and its own keys; per_replica runs once for each instance."""
    app.write(
        """
services:
  web:
    image: IMAGE
    init: true
    command: sleep 600
    scale: 2
    environment: {WHO: service}
    volumes: [data:/data]
    pre_start:
      - {command: sh -c "echo once $$WHO >>/data/story", environment: {WHO: step}}
      - {command: sh -c "echo each $$(hostname) $$(id -u) >>/data/story", per_replica: true, user: "0", hostname: h}
volumes: {data: {}}
"""
    )
    app.ok("up", "-d")
    assert app("exec", "-T", "web", "cat", "/data/story").stdout.decode().splitlines() == [
        "once step",
        "each h 0",
        "each h 0",
    ]


def test_jobs(app: Application) -> None:  # noqa: F811
    """A job isn't part of `up`; `run` runs it, and refuses one that isn't to be begun by hand."""
    app.write(
        """
services: {web: {image: IMAGE, init: true, command: sleep 600}}
jobs:
  backup: {image: IMAGE, command: echo saved, triggers: {manual: true}, depends_on: [web]}
  nightly: {image: IMAGE, command: echo never, triggers: {manual: false, schedule: ["0 3 * * *"]}}
"""
    )
    app.ok("up", "-d")
    assert app.instances() == {"web-1": "running"}
    assert app("run", "--rm", "-T", "backup").stdout == b"saved\n"
    assert b"not to be begun by hand" in app("run", "--rm", "-T", "nightly").stderr
    refused = app("up", "-d", "backup")
    assert (refused.returncode, b"backup is a job" in refused.stderr) == (2, True)


def test_watching_while_it_runs(app: Application) -> None:  # noqa: F811
    """`up --watch` shows what is written and syncs; sync+exec runs its command as the user that it says."""
    command = 'command: sh -c "echo $$WHO $$(id -u) >>/tmp/ran", user: user, environment: {WHO: me}'
    app.watched(f"action: sync+exec, exec: {{{command}}}", "page")
    with app.going("up", "--watch"):
        until(lambda: app.instances() == {"web-1": "running"}, 60)
        time.sleep(1)  # the first look at the files comes a moment after the start
        (app.directory / "src/page").write_text("second")
        until(lambda: app("exec", "-T", "web", "cat", "/srv/page").stdout == b"second", 60)
        until(lambda: app("exec", "-T", "web", "cat", "/tmp/ran").stdout.split()[:2] == [b"me", b"1000"], 60)


def test_words_of_docker_compose(app: Application) -> None:  # noqa: F811
    """Options in front of the verb, and a file on standard input, are understood as docker compose does."""
    text = f"services: {{web: {{image: {app.image}, init: true, command: sleep 600}}}}"
    said = app.daemon.trivet(
        "compose", "--ansi", "never", "--progress=plain", "-f", "-", "-p", app.name, "up", "-d", input=text.encode()
    )
    assert said.returncode == 0, said.stderr
    assert app.instances() == {"web-1": "running"}
    assert app.daemon.trivet("compose", "-f", "-", "-p", app.name, "config", "-q", input=text.encode()).returncode == 0
    assert b"trivet compose plan" in app.daemon.trivet("compose", "--dry-run", "up").stderr
    app.write(text)
    app.ok("rm", "--stop", "-f")
    assert app.instances() == {}
