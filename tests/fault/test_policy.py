"""A policy at work in an engine: what runs and what is built upon is asked for, whenever it came."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.fault.conftest import IMAGE


def test_a_policy_is_obeyed_by_run_build_and_load(tmp_path: Path) -> None:
    """Where only what was made here is accepted, a loaded image is refused at load, run, create, start and FROM."""
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (tmp_path / "Dockerfile").write_text("FROM foreign:1\nRUN true\n")
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        engine = Daemon(tmp_path / "root", run, f"--policy={policy}")
        undo.callback(engine.clean)
        engine.start()
        engine.ok("import", "-q", "-c", 'CMD ["true"]', "-", IMAGE, input=busybox_tar())
        engine.ok("tag", IMAGE, "foreign:1")
        saved = engine.trivet("save", "foreign:1").stdout
        engine.ok("rmi", IMAGE, "foreign:1")
        engine.ok("load", "-q", input=saved)
        engine.ok("run", "--rm", "foreign:1")
        engine.ok("create", "--name", "early", "foreign:1")
        engine.ok("tag", "foreign:1", "other:1")
        engine.ok("create", "--name", "moved", "other:1")
        engine.ok("rmi", "other:1")
        policy.write_text('{"default": [{"type": "reject"}]}')
        starts = (["start", "early"], ["start", "moved"])
        for words in (*starts, ["run", "foreign:1"], ["create", "foreign:1"], ["build", str(tmp_path)]):
            done = engine.trivet(*words)
            assert done.returncode != 0
            assert b"is refused by policy" in done.stderr, done.stderr
        assert b"is refused by policy" in engine.trivet("load", input=saved).stderr
        engine.ok("import", "-q", "-c", 'CMD ["true"]', "-", "own:1", input=busybox_tar())
        engine.ok("run", "--rm", "own:1")
        engine.ok("create", "--name", "mine", "own:1")
        engine.ok("start", "-a", "mine")
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        for name in ("early", "moved"):
            engine.ok("start", "-a", name)
        policy.unlink()
        assert b"cannot be followed" in engine.trivet("run", "foreign:1").stderr
