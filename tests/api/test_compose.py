"""`trivet compose` with a real engine: what files say comes true, once, in order, and goes again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import BIN, Daemon
from tests.runtime import until

Run = Callable[..., subprocess.CompletedProcess[bytes]]


class Application:
    """An application of a test's own: its directory, its name, and the command."""

    def __init__(self, daemon: Daemon, directory: Path, image: str) -> None:
        self.daemon, self.directory, self.image = daemon, directory, image
        self.name = f"c{os.urandom(4).hex()}"

    def write(self, text: str, name: str = "compose.yaml") -> None:
        """Write a file; IMAGE in it is the tests' image."""
        (self.directory / name).write_text(text.replace("IMAGE", self.image))

    def __call__(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run `trivet compose`."""
        project = ("--project-directory", str(self.directory), "-p", self.name)
        return self.daemon.trivet("compose", *project, *words, env=env, timeout=240)

    def ok(self, *words: str, env: dict[str, str] | None = None) -> str:
        """Run `trivet compose`, which must succeed; what it says on both streams."""
        done = self(*words, env=env)
        said = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == 0, said
        return said

    def instances(self) -> dict[str, str]:
        """Give the instances' statuses by their names without the application's."""
        found = self.daemon.client.instances.list(
            all=True, wanted={"label": [f"com.docker.compose.project={self.name}"]}
        )
        return {one.name.removeprefix(f"{self.name}-"): one.status for one in found}

    @contextmanager
    def going(self, *words: str) -> Iterator[None]:
        """Have `trivet compose` running meanwhile."""
        process = self.daemon.begin("compose", "--project-directory", str(self.directory), "-p", self.name, *words)
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)

    def watched(self, rule: str, *names: str) -> None:
        """Write an application of one service that a rule keeps like ./src, where files hold their own names."""
        for path in (self.directory / "src" / name for name in names):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(path.relative_to(self.directory / "src")))
        watch = f"develop: {{watch: [{{path: ./src, target: /srv, {rule}}}]}}"
        self.write(f"services: {{web: {{image: IMAGE, init: true, command: sleep 600, {watch}}}}}")

    def id(self, name: str) -> str:
        """Give an instance's id."""
        return self.daemon.client.instances.get(f"{self.name}-{name}").id


@pytest.fixture
def app(daemon: Daemon, busybox: str, tmp_path: Path) -> Iterator[Application]:
    """An application that goes afterwards, with its volumes."""
    made = Application(daemon, tmp_path, busybox)
    yield made
    made("--profile", "*", "down", "-v", "-t", "0", "--remove-orphans")
    assert made.instances() == {}
    label = {"label": [f"com.docker.compose.project={made.name}"]}
    assert not daemon.client.networks.list(label)
    assert not daemon.client.volumes.list(wanted=label)


SHOP = """
services:
  db:
    image: IMAGE
    stop_grace_period: 0s
    command: sh -c "sleep 1; echo rows >/data/rows; exec httpd -f -p 80 -h /data"
    volumes: [data:/data]
    healthcheck: {test: wget -qO- http://127.0.0.1/rows, interval: 200ms, start_interval: 100ms, start_period: 20s}
    networks: {back: {aliases: [database]}}
  web:
    image: IMAGE
    stop_grace_period: 0s
    command: sh -c "wget -qO- http://database/rows; cat /run/secrets/password /etc/site.conf; exec httpd -f -p 80"
    environment: {WORD: "${WORD:-hello}"}
    depends_on: {db: {condition: service_healthy}, seed: {condition: service_completed_successfully}}
    networks: [back, default]
    secrets: [{source: password, uid: "10", gid: "11", mode: 0440}]
    configs: [{source: site, target: /etc/site.conf}]
    ports: ["80"]
  seed: {image: IMAGE, command: echo seeded}
  debug: {image: IMAGE, init: true, command: sleep 600, profiles: [dev]}
secrets: {password: {environment: PASSWORD}}
configs: {site: {content: "site ${WORD:-hello}\\n"}}
volumes: {data: {}}
networks: {back: {internal: true}}
"""
KEY = {"PASSWORD": "open sesame\n"}


def test_an_application_comes_true_and_goes(app: Application) -> None:
    """Networks, volumes, secrets, health and completion are as the file says; a second `up` changes nothing."""
    app.write(SHOP)
    planned = app.ok("plan", env=KEY)
    assert f"+ network {app.name}_back" in planned
    assert f"+ instance {app.name}-web-1  create" in planned
    assert "debug" not in planned
    assert app.instances() == {}
    app.ok("up", "-d", "--wait", env=KEY)
    assert app.instances() == {"db-1": "running", "web-1": "running", "seed-1": "exited"}
    until(lambda: "site hello" in app.ok("logs", "web", env=KEY))
    assert "rows" in app.ok("logs", "--no-log-prefix", "web", env=KEY)
    assert "open sesame" in app.ok("logs", "web", env=KEY)
    seen = app.ok("exec", "-T", "web", "stat", "-c", "%u %g %a", "/run/secrets/password", env=KEY)
    assert seen.strip() == "10 11 440"
    assert app.ok("port", "web", "80", env=KEY).startswith("0.0.0.0:")
    before = {name: app.id(name) for name in ("db-1", "web-1")}
    app.ok("up", "-d", env=KEY)
    assert {name: app.id(name) for name in before} == before
    rows = [json.loads(line) for line in app.ok("ps", "-a", "--json", env=KEY).splitlines()]
    assert {row["labels"]["com.docker.compose.service"] for row in rows} == {"db", "web", "seed"}
    assert app.name in app.ok("ls")
    app.ok("up", "-d", "debug", env=KEY)
    assert app.instances()["debug-1"] == "running"


def test_what_changed_is_replaced(app: Application) -> None:
    """Another value replaces the instances it concerns, tells why, and keeps anonymous and named volumes."""
    app.write(SHOP.replace("volumes: [data:/data]", "volumes: [data:/data, /anonymous]"))
    app.ok("up", "-d", env=KEY)
    db, web = app.id("db-1"), app.id("web-1")
    app.ok("exec", "-T", "db", "touch", "/anonymous/kept", env=KEY)
    planned = app.ok("plan", env={**KEY, "WORD": "bye"})
    assert f"~ instance {app.name}-web-1  recreate (changed: env)" in planned
    assert "db-1" not in planned
    app.ok("up", "-d", env={**KEY, "WORD": "bye"})
    assert (app.id("db-1") == db, app.id("web-1") == web) == (True, False)
    assert "site bye" in app.ok("logs", "web", env=KEY)
    app.ok("up", "-d", "--force-recreate", "--no-deps", "db", env={**KEY, "WORD": "bye"})
    assert app.id("db-1") != db
    app.ok("exec", "-T", "db", "test", "-e", "/anonymous/kept", env=KEY)
    assert len(app.instances()) == 3


WEB = """
services:
  web:
    image: IMAGE
    init: true
    command: sh -c "COMMAND"
    deploy: {replicas: 3, update_config: {order: ORDER, failure_action: ACTION, monitor: 200ms}}
"""


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_a_bad_update_is_rolled_back(app: Application, order: str) -> None:
    """When the third of three new ones fails, all three are again what they were."""
    text = WEB.replace("ORDER", order).replace("ACTION", "rollback")
    app.write(text.replace("COMMAND", "exec sleep 600"))
    app.ok("up", "-d")
    assert app.instances() == {f"web-{number}": "running" for number in (1, 2, 3)}
    # The third is told from the others by a file that the second leaves behind before it is healthy.
    bad = "if [ -e /v/2 ]; then exit 7; elif [ -e /v/1 ]; then touch /v/2; else touch /v/1; fi; >/ok; exec sleep 601"
    check = "    healthcheck: {test: test -e /ok, interval: 100ms, start_interval: 100ms, start_period: 60s}\n"
    app.write(text.replace("COMMAND", bad) + check + "    volumes: [v:/v]\nvolumes: {v: {}}\n")
    done = app("up", "-d")
    assert done.returncode == 1
    assert b"exit code 7" in done.stderr
    assert app.instances() == {f"web-{number}": "running" for number in (1, 2, 3)}
    for number in (1, 2, 3):
        request = app.daemon.client.instances.get(f"{app.name}-web-{number}").request
        assert request.command[-1] == "exec sleep 600"


def test_an_update_without_a_gap(app: Application) -> None:
    """With start-first somebody answers all the time while instances are replaced."""
    app.write(
        """
services:
  web:
    image: IMAGE
    init: true
    command: sh -c "echo ${WORD} >/ok; exec httpd -f -p 80 -h /"
    healthcheck: {test: wget -qO- http://127.0.0.1/ok, interval: 100ms, start_interval: 100ms, start_period: 20s}
    deploy: {update_config: {order: start-first}}
  client:
    image: IMAGE
    init: true
    command: sh -c "while :; do timeout 1 wget -qO- http://web/ok || echo lost; sleep 0.02; done"
    depends_on: {web: {condition: service_healthy}}
"""
    )
    app.ok("up", "-d", env={"WORD": "one"})
    app.ok("up", "-d", "--no-deps", "web", env={"WORD": "two"})
    until(lambda: "two" in app.ok("logs", "--no-log-prefix", "client"), 30)
    said = app.ok("logs", "--no-log-prefix", "client").split()
    assert "one" in said
    # A request that was under way when the old one ended may be lost; nobody is sent to one that ends.
    assert said.count("lost") <= 1


def test_a_published_port_without_a_gap(app: Application) -> None:
    """With start-first a published port answers every single request while the instance behind it is replaced."""
    app.write(
        """
services:
  web:
    image: IMAGE
    init: true
    command: sh -c "echo ${WORD} >/ok; exec httpd -f -p 80 -h /"
    healthcheck: {test: wget -qO- http://127.0.0.1/ok, interval: 100ms, start_interval: 100ms, start_period: 20s}
    ports: ["127.0.0.1:8189:80"]
    deploy: {update_config: {order: start-first}}
"""
    )
    app.ok("up", "-d", "--wait", env={"WORD": "one"})
    said, over = list[str](), threading.Event()

    def hammer() -> None:
        while not over.is_set():
            try:
                with urllib.request.urlopen("http://127.0.0.1:8189/ok", timeout=10) as answer:
                    said.append(answer.read().decode().strip())
            except OSError as error:
                said.append(f"lost: {error}")

    clients = [threading.Thread(target=hammer) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        app.ok("up", "-d", env={"WORD": "two"})
        until(lambda: said[-1:] == ["two"], 30)
    finally:
        over.set()
        for client in clients:
            client.join()
    assert {"one", "two"} == set(said)
    request = app.daemon.client.instances.get(f"{app.name}-web-1").request
    assert [port.host_port for port in request.ports] == [8189]


def test_hooks_and_one_shots(app: Application) -> None:
    """pre_start runs before, post_start inside after a start, pre_stop before a stop; `run` leaves nothing."""
    app.write(
        """
services:
  web:
    image: IMAGE
    init: true
    command: sleep 600
    volumes: [shared:/shared]
    pre_start: [{command: sh -c "echo before >>/shared/story"}]
    post_start: [{command: [sh, -c, "echo after $$WHO >>/shared/story"], environment: {WHO: start}}]
    pre_stop: [{command: sh -c "echo stop >>/shared/story"}]
volumes: {shared: {}}
"""
    )
    app.ok("up", "-d")
    app.ok("stop")
    said = app.daemon.trivet(
        "compose",
        "--project-directory",
        str(app.directory),
        "-p",
        app.name,
        "run",
        "--rm",
        "-T",
        "web",
        "cat",
        "/shared/story",
    )
    assert said.stdout.decode().split("\n")[:3] == ["before", "after start", "stop"]
    assert app.instances() == {"web-1": "exited"}
    failed = app("run", "--rm", "-T", "web", "sh", "-c", "exit 9")
    assert failed.returncode == 9
    step = "{command: sh -c 'echo no; exit 4'}"
    app.write(f"services: {{web: {{image: IMAGE, init: true, command: sleep 600, pre_start: [{step}]}}}}")
    refused = app("up", "-d")
    assert refused.returncode == 1
    assert b"pre_start of web ended with exit code 4: no" in refused.stderr
    assert "running" not in app.instances().values()


def test_dependencies_that_fail(app: Application) -> None:
    """What waits for something that never gets ready isn't started, and the reason is told."""
    app.write(
        """
services:
  db:
    image: IMAGE
    init: true
    command: sleep 600
    healthcheck: {test: echo no rows; false, interval: 100ms, retries: 2, start_interval: 100ms}
  job: {image: IMAGE, command: sh -c "exit 5"}
  web: {image: IMAGE, init: true, command: sleep 600, depends_on: {db: {condition: service_healthy}}}
  late: {image: IMAGE, init: true, command: sleep 600, depends_on: {job: {condition: service_completed_successfully}}}
"""
    )
    done = app("up", "-d", "web")
    assert done.returncode == 1
    assert f"cannot start web: {app.name}-db-1 is unhealthy: no rows" in done.stderr.decode()
    done = app("up", "-d", "late")
    assert f"cannot start late: {app.name}-job-1 ended with exit code 5" in done.stderr.decode()
    assert {"web-1", "late-1"} & set(app.instances()) == set()


def test_scale_orphans_and_levels(app: Application) -> None:
    """--scale makes and removes instances; services that are gone are orphans; levels may differ."""
    web = "web: {image: IMAGE, init: true, command: sleep 600}"
    app.write(f"services: {{{web}, tool: {{image: IMAGE, isolation: process, command: sleep 600}}}}")
    app.ok("up", "-d", "--scale", "web=3")
    assert sorted(app.instances()) == ["tool-1", "web-1", "web-2", "web-3"]
    assert app.daemon.client.instances.get(f"{app.name}-tool-1").isolation == "process"
    app.write(f"services: {{{web}}}")
    said = app.ok("up", "-d", "-t", "0")
    assert "instances of services that are gone" in said
    assert sorted(app.instances()) == ["tool-1", "web-1"]
    app.ok("up", "-d", "--remove-orphans", "-t", "0")
    assert sorted(app.instances()) == ["web-1"]


def test_images_are_built_and_removed(app: Application) -> None:
    """A service with `build` gets its image at the first `up`, a new one with --build; `--rmi local` removes it."""
    (app.directory / "Dockerfile").write_text(f"FROM {app.image}\nARG WORD=none\nRUN echo $WORD >/word\n")
    app.write("services: {web: {build: {context: ., args: {WORD: one}}, command: cat /word}}")
    app.ok("up", "-d")
    until(lambda: "one" in app.ok("logs", "web"))
    app.write("services: {web: {build: {context: ., args: {WORD: two}}, command: cat /word}}")
    app.ok("up", "-d", "--build")
    until(lambda: "two" in app.ok("logs", "web"))
    app.ok("down", "--rmi", "local")
    assert f"{app.name}-web" not in app.daemon.ok("images")


def test_staying_in_the_foreground(app: Application) -> None:
    """`up` shows what is written, and Ctrl-C stops the application; --exit-code-from ends with that code."""
    app.write('services: {web: {image: IMAGE, init: true, command: sh -c "echo working; exec sleep 600"}}')
    environment = {**os.environ, "TRIVET_HOST": app.daemon.address}
    words: list[str | Path] = [BIN / "trivet", "compose", "--project-directory", app.directory, "-p", app.name, "up"]
    with subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # may be ignored here
    ) as shown:
        assert shown.stdout
        assert shown.stdout.readline().decode().strip() == f"{app.name}-web-1 | working"
        shown.send_signal(signal.SIGINT)
        assert shown.wait(30) == 130
    assert app.instances() == {"web-1": "exited"}
    app.write(
        'services: {web: {image: IMAGE, init: true, command: sleep 600}, test: {image: IMAGE, command: sh -c "exit 6"}}'
    )
    assert app("up", "-t", "0", "--exit-code-from", "test").returncode == 6
    assert set(app.instances().values()) == {"exited"}


def test_watching_begins_with_a_sync(app: Application) -> None:
    """With initial_sync what is there already comes first; only what is to be included is looked at."""
    rule = 'action: sync, include: ["*.html"], initial_sync: true'
    app.watched(rule, "page.html", "deep/other.html", "notes.txt")
    app.ok("up", "-d")
    with app.going("watch", "--no-up"):
        until(lambda: app("exec", "-T", "web", "cat", "/srv/deep/other.html").stdout == b"deep/other.html", 60)
        assert app("exec", "-T", "web", "ls", "/srv").stdout.split() == [b"deep", b"page.html"]
        (app.directory / "src/notes.txt").write_text("changed")
        (app.directory / "src/new.html").write_text("new")
        until(lambda: app("exec", "-T", "web", "test", "-e", "/srv/new.html").returncode == 0, 60)
        assert app("exec", "-T", "web", "test", "-e", "/srv/notes.txt").returncode == 1


def test_external_secrets(app: Application) -> None:
    """A secret from the engine's store is in the service with owner and mode; one that isn't there is named."""
    secret = f"{app.name}-password"
    app.write(
        f"""
services:
  web:
    image: IMAGE
    init: true
    command: sleep 600
    secrets: [{{source: password, target: db, uid: "1000", gid: "1000", mode: 0400}}, plain]
    configs: [{{source: settings, target: /etc/settings}}]
secrets:
  password: {{external: true, name: {secret}}}
  plain: {{external: true, name: {secret}}}
configs:
  settings: {{external: true, name: {secret}}}
"""
    )
    done = app("up", "-d")
    assert done.returncode
    assert f"no such secret: {secret}" in done.stderr.decode()
    app.daemon.ok("secret", "create", secret, "-", input=b"open sesame")
    try:
        app.ok("up", "-d")
        script = "cat /run/secrets/db /run/secrets/plain /etc/settings; stat -c ' %u %a' /run/secrets/db"
        shown = app("exec", "-T", "web", "sh", "-c", script).stdout.decode()
        assert shown.split() == ["open", "sesameopen", "sesameopen", "sesame", "1000", "400"]
        assert "is in use by instance" in app.daemon.trivet("secret", "rm", secret).stderr.decode()
    finally:
        app.ok("down")
        app.daemon.ok("secret", "rm", secret)


def test_watching_files(app: Application) -> None:
    """A changed file is in the running instance soon, a removed one goes."""
    app.watched('action: sync, ignore: ["*.tmp"], initial_sync: true', "page")
    app.ok("up", "-d")
    with app.going("watch", "--no-up"):
        until(lambda: app("exec", "-T", "web", "cat", "/srv/page").stdout == b"page", 60)
        (app.directory / "src/junk.tmp").write_text("x")
        (app.directory / "src/page").write_text("second")
        until(lambda: app("exec", "-T", "web", "cat", "/srv/page").stdout == b"second", 60)
        assert app("exec", "-T", "web", "test", "-e", "/srv/junk.tmp").returncode == 1
        (app.directory / "src/page").unlink()
        until(lambda: app("exec", "-T", "web", "test", "-e", "/srv/page").returncode == 1, 60)
