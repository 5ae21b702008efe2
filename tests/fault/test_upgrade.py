"""An engine replaced by a later one while its instances run, as an upgrade does."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.fault.conftest import IMAGE
from tests.image.served import trivet_registry
from tests.runtime import until

from trivet.client.schema import PruneRequest

pytestmark = pytest.mark.needs("root", "git", "musl-gcc")

OLD = "22988ba3362a"
REPOSITORY = Path(__file__).parents[2]
LEVELS = ["process", "container", pytest.param("vm", marks=pytest.mark.vm)]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of an earlier trivet, its C programs built."""
    place = tmp_path_factory.mktemp("old")
    archive = place / "src.tar"
    words: list[str | Path] = ["git", "archive", "-o", archive, OLD, "src"]
    if subprocess.run(words, cwd=REPOSITORY, capture_output=True, check=False).returncode:
        pytest.skip(f"commit {OLD} is not in this clone")
    subprocess.run(["tar", "-x", "-f", archive, "-C", place], check=True)
    subprocess.run(["make", "-s", "-C", place / "src/trivet/launch/native"], check=True)
    return place / "src"


@pytest.fixture
def engine(old: Path, tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A running engine of that trivet, with an image; the command is of that trivet, too, while PYTHONPATH is set."""
    made = Daemon(tmp_path / "root", short_path)
    monkeypatch.setenv("PYTHONPATH", str(old))
    made.quiet = ()
    made.start()
    made.ok("import", "-q", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
    yield made
    monkeypatch.delenv("PYTHONPATH", raising=False)
    made.clean()


@pytest.mark.parametrize("level", LEVELS)
def test_instances_outlive_an_upgrade(engine: Daemon, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier engine began goes on under this one: programs, names, ports, data, logs, and a start anew."""
    engine.ok("network", "create", "net")
    script = "echo begun; echo data >/v/file; exec sleep 1000"
    network = () if level == "process" else ("--network", "net")
    engine.ok("run", "-d", "--name", "one", "--isolation", level, *network, "-v", "vol:/v", IMAGE, "sh", "-c", script)
    web = ("httpd", "-f", "-h", "/etc")
    engine.ok("run", "-d", "--name", "web", "--network", "net", "-p", "127.0.0.1::80", IMAGE, *web)
    engine.ok("create", "--name", "later", IMAGE, "echo", "later")
    until(lambda: engine.ok("logs", "one") == "begun", 60)
    pid, place = engine.client.instances.get("one").pid, engine.ok("port", "web").split()[-1]
    engine.kill()
    monkeypatch.delenv("PYTHONPATH")
    engine.quiet = Daemon(engine.root, engine.run).quiet
    engine.start()
    assert engine.client.system.check() == []
    assert engine.client.instances.get("one").pid == pid
    assert (engine.ok("logs", "one"), engine.ok("exec", "one", "cat", "/v/file")) == ("begun", "data")
    assert engine.ok("run", "--rm", "--network", "net", IMAGE, "wget", "-qO-", "http://web/passwd")
    with urllib.request.urlopen(f"http://{place}/passwd", timeout=30) as answer:
        assert b"root" in answer.read()
    assert engine.ok("start", "-a", "later") == "later"
    engine.ok("stop", "-t", "0", "one")
    engine.ok("start", "one")
    until(lambda: engine.ok("exec", "one", "cat", "/v/file") == "data", 60)  # its program writes it anew
    engine.ok("rm", "-f", "one", "web", "later")
    assert engine.client.system.check() == []


@pytest.mark.parametrize("kind", ["overlay", "erofs"])
def test_images_outlive_an_upgrade(
    old: Path, tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What an earlier engine imported, built, pulled and pushed is the same to this one, in its store and registry."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(
        f"FROM {IMAGE}\nCOPY Dockerfile /d/there\nRUN rm /bin/vi && echo built >/word\n"
    )
    made = Daemon(tmp_path / "root", short_path, f"--snapshotter={kind}")
    monkeypatch.setenv("PYTHONPATH", str(old))
    made.quiet = ()
    made.start()
    made.ok("import", "-q", "-c", 'CMD ["cat", "/word"]', "-", IMAGE, input=busybox_tar())
    with trivet_registry(tmp_path / "served") as registry:
        far = f"{registry}/app:1"
        made.ok("build", "-q", "-t", far, "-t", "kept:1", str(context))
        pushed = made.ok("push", "-q", far)
        made.ok("rmi", far)
        made.ok("pull", "-q", far)
        before = sorted((each.id, *sorted(each.names)) for each in made.client.images.list())
    made.kill()
    monkeypatch.delenv("PYTHONPATH")
    made.quiet = Daemon(made.root, made.run).quiet
    made.start()
    try:
        assert made.client.system.check() == []
        assert sorted((each.id, *sorted(each.names)) for each in made.client.images.list()) == before
        assert made.ok("run", "--rm", "--network", "none", "kept:1") == "built"
        made.ok("build", "-q", "-t", "again:1", str(context))
        assert made.ok("run", "--rm", "--network", "none", "again:1", "ls", "/d", "/word").split() == [
            "/word",
            "/d:",
            "there",
        ]
        with trivet_registry(tmp_path / "served", "--listen", registry) as registry:
            made.ok("rmi", far, "kept:1", "again:1")
            made.client.system.prune(PruneRequest(kinds=["build", "images"]))
            made.ok("pull", "-q", far)
            assert made.client.images.get(far).digest == pushed
            assert made.ok("run", "--rm", "--network", "none", far) == "built"
        assert made.client.system.check() == []
    finally:
        made.clean()
