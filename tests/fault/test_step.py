"""An engine killed before any step of a verb: the next one is whole, and the verb done leaves what it always leaves.

`TRIVET_FAULT_STEPS` asks for more than a few of them: `distinct` for every step but many like ones, `all` for every
single one. Otherwise the day says which.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.fault.conftest import IMAGE
from tests.fault.step import Killer, Verb, distinct, has_image, spread, there
from tests.image.served import trivet_registry
from tests.image.test_disk import make_raw

from trivet.engine.image.sparing import WINDOW

MOST = 2
WISH = os.environ.get("TRIVET_FAULT_STEPS", "")
pytestmark = pytest.mark.timeout(7200 if WISH else 300)

SLEEP = ("--network", "net", IMAGE, "sleep", "1000")
GONE = (("rm", "-f", "one"),)
# Of one date, so that what is stored of it has one digest.
DATED = "find /data -exec touch -d @0 {} +"
FILL = (
    ("volume", "create", "data"),
    (
        "run",
        "--rm",
        "-v",
        "data:/data",
        IMAGE,
        "sh",
        "-c",
        f"mkdir /data/d; echo one >/data/word; seq 999 >/data/d/x; {DATED}",
    ),
)
USE = ("run", "-d", "--name", "one", "-v", "data:/data", *SLEEP)
CHANGE = (
    "run",
    "--rm",
    "-v",
    "data:/data",
    IMAGE,
    "sh",
    "-c",
    "echo two >/data/word; rm -r /data/d; echo new >/data/n",
)


def _seen(interfaces: str) -> tuple[str, ...]:
    """Give a command that succeeds when an instance has these interfaces."""
    return ("exec", "one", "sh", "-c", f"test \"$(echo $(ls /sys/class/net))\" = '{interfaces}'")


def _verbs(registry: str, context: str) -> dict[str, Verb]:
    far = f"{registry}/far:1"
    run = ("run", "-d", "--name", "one", *SLEEP)
    machine = ("run", "-d", "--isolation", "vm", "--name", "one", *SLEEP)
    return {
        "create": Verb(words=("create", "--name", "one", "-p", "80", *SLEEP), done=there("one"), after=GONE),
        "start": Verb(
            before=(("create", "--name", "one", "-p", "80", *SLEEP),),
            words=("start", "one"),
            done=there("one", "running"),
            after=GONE,
        ),
        "stop": Verb(before=(run,), words=("stop", "-t", "0", "one"), done=there("one", "exited"), after=GONE),
        "remove": Verb(
            before=(run,), words=("rm", "-f", "one"), done=lambda engine: not there("one")(engine), after=()
        ),
        "connect": Verb(
            before=(run,),
            words=("network", "connect", "other", "one"),
            done=lambda engine: "one" in engine.client.networks.get("other").members,
            after=GONE,
        ),
        "plug": Verb(
            before=(machine,),
            words=("network", "connect", "other", "one"),
            done=lambda engine: "one" in engine.client.networks.get("other").members,
            after=(_seen("eth0 eth1 lo"), *GONE),
        ),
        "unplug": Verb(
            before=(machine, ("network", "connect", "other", "one")),
            words=("network", "disconnect", "other", "one"),
            done=lambda engine: "other" not in [use.network for use in engine.client.instances.get("one").networks],
            after=(_seen("eth0 lo"), *GONE),
        ),
        "pull": Verb(words=("pull", "-q", far), done=has_image(far), after=(("rmi", far),)),
        "save": Verb(
            before=(("pull", "-q", far),),
            words=("save", "-o", f"{context}/saved", far),
            done=lambda engine: False,  # an archive doesn't tell whether it is whole
            after=(("rmi", far),),
        ),
        "build": Verb(
            words=("build", "-q", "--no-cache", "-t", "made:1", context),
            done=has_image("made:1"),
            after=(("builder", "prune", "-f"), ("rmi", "made:1")),
        ),
        "disk": Verb(
            words=("image", "import", "-q", f"{context}/disk.qcow2", "disk:1"),
            done=has_image("disk:1"),
            after=(("rmi", "disk:1"),),
        ),
        "gc": Verb(
            before=(("pull", "-q", far),),
            words=("rmi", far),
            done=lambda engine: not has_image(far)(engine),
            after=(),
        ),
        "snapshot": Verb(
            before=(*FILL, USE),
            words=("volume", "snapshot", "-q", "data@first"),
            done=lambda engine: bool(engine.client.volumes.snapshots("data")),
            after=(*GONE, ("volume", "rm", "data@first"), ("volume", "rm", "data")),
        ),
        "rollback": Verb(
            before=(*FILL, ("volume", "snapshot", "-q", "data@first"), CHANGE),
            words=("volume", "rollback", "-q", "data@first"),
            done=lambda engine: (Path(engine.client.volumes.get("data").mountpoint) / "word").read_text() == "one\n",
            after=(("volume", "rm", "data@first"), ("volume", "rm", "data")),
        ),
        "rename": Verb(
            before=(*FILL, ("create", "--name", "one", "-v", "data:/data", *SLEEP)),
            words=("volume", "rename", "data", "moved"),
            done=lambda engine: engine.client.instances.get("one").mounts[0].name == "moved",
            after=(*GONE, ("volume", "rm", "moved")),
        ),
    }


@pytest.fixture
def killer(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Killer]:
    """An engine that counts its steps, with an image and two networks."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        snapshotter, _, blobs = str(request.param).partition("-")
        engine = Daemon(tmp_path / "root", run, f"--snapshotter={snapshotter}", f"--layer-blobs={blobs or 'keep'}")
        engine.prefix = ("env", f"TRIVET_FAULT={tmp_path}/control")
        undo.callback(engine.clean)
        engine.start()
        engine.ok("import", "-q", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
        for name in ("net", "other"):
            engine.ok("network", "create", name)
        yield Killer(engine, tmp_path / "control")


@pytest.fixture
def verb(killer: Killer, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Verb]:
    """The verb of that name, and the registry it may want, with an image of two layers."""
    engine, context = killer.engine, tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY Dockerfile /there\nRUN rm /bin/vi && echo one >/one\n")
    if "--layer-blobs=discard" in engine.options:
        (context / "large").write_bytes(os.urandom(WINDOW + 1))
        with (context / "Dockerfile").open("a") as file:
            file.write("COPY large /large\n")
    if request.param == "disk":
        raw = make_raw(context / "disk.raw")
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, context / "disk.qcow2"], check=True)
    with trivet_registry(tmp_path / "served") as registry:
        if request.param in ("pull", "save", "gc"):
            engine.ok("build", "-q", "-t", f"{registry}/far:1", str(context))
            engine.ok("push", "-q", f"{registry}/far:1")
            engine.ok("builder", "prune", "-f")
            engine.ok("rmi", f"{registry}/far:1", IMAGE)
        yield _verbs(registry, str(context))[request.param]


def chosen(steps: list[str]) -> list[int]:
    """Say before which of a verb's steps the engine is to die."""
    if WISH == "all":
        return list(range(1, len(steps) + 1))
    return distinct(steps) if WISH else spread(distinct(steps), MOST, int(time.time() / 86400))


VERBS = "create start stop remove connect plug unplug pull build gc disk snapshot rollback rename".split()
CASES = [(name, "overlay") for name in VERBS]


@pytest.mark.parametrize(
    ("verb", "killer"),
    [
        *CASES,
        ("pull", "erofs"),
        ("gc", "erofs"),
        ("pull", "overlay-discard"),
        ("pull", "erofs-discard"),
        ("save", "overlay-discard"),
    ],
    indirect=True,
    ids=lambda word: str(word),
)
def test_killed_before_a_step(verb: Verb, killer: Killer) -> None:
    """Wherever the engine dies, after its restart the check is clean, and the verb done again ends as undisturbed."""
    steps, expected = killer.plain(verb)
    assert len(steps) > 1
    problems = []
    for step in chosen(steps):
        left = killer.killed(verb, step)
        at = killer.last()
        if left != expected:
            told = {key: (value, expected[key]) for key, value in left.items() if value != expected[key]}
            problems.append(f"{at}: {told}")
    assert problems == []
