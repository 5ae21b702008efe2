"""Hooks: all six kinds, where they run and what they are told, and those that fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.field_case import OURS
from tests.runtime import Runtime

HOOK_KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
HOOKS: dict[str, Any] = {
    kind: [{"path": "/bin/sh", "args": ["sh", "-c", ""], "env": [f"KIND={kind}"], "timeout": 10}] for kind in HOOK_KINDS
}


def test_hooks(runtime: Runtime) -> None:
    """All six kinds run in order, each where it belongs, with the state on its input."""
    seen = runtime.bundle / "seen"
    shared = runtime.bundle / "rootfs/data"
    hooks = json.loads(json.dumps(HOOKS))
    for kind in HOOK_KINDS:
        place = "/data" if kind == "startContainer" else shared
        hooks[kind][0]["args"][2] = f"(cat; echo; echo $KIND; readlink /proc/self/ns/uts) >> {place}/{kind}"
    runtime.change({"hooks": hooks, "root": {"readonly": False}}, "sh", "-c", "ls /data > /data/begun")
    assert runtime("run", runtime.id).returncode == 0
    host = str(Path(OURS).readlink())
    statuses = {}
    for kind in HOOK_KINDS:
        state, named, namespace = (shared / kind).read_text().split("\n")[:3]
        record = json.loads(state)
        assert (record["id"], record["bundle"], named) == (runtime.id, str(runtime.bundle), kind)
        assert (namespace == host) == (kind not in ("createContainer", "startContainer"))
        statuses[kind] = record["status"]
    assert list(statuses.values()) == ["creating", "creating", "creating", "created", "running", "stopped"]
    begun = (shared / "begun").read_text().split()
    assert {"prestart", "createRuntime", "createContainer", "startContainer"} <= set(begun)
    assert "poststop" not in begun
    assert not seen.exists()


@pytest.mark.parametrize("kind", HOOK_KINDS)
@pytest.mark.parametrize("how", ["fails", "hangs", "is missing"])
def test_hook_that(runtime: Runtime, kind: str, how: str) -> None:
    """A hook that fails, takes too long or isn't there ends the container, but for the last kind, which only warns."""
    script = {"fails": "echo no >&2; exit 3", "hangs": "exec sleep 60", "is missing": ""}[how]
    hook = {"path": "/no/such/hook"} if how == "is missing" else {"path": "/bin/sh", "args": ["sh", "-c", script]}
    runtime.change({"hooks": {kind: [hook | {"timeout": 1}]}}, "sh", "-c", "echo ran")
    done = runtime("run", runtime.id)
    assert done.returncode == (0 if kind == "poststop" else 1), done
    assert f"{kind} hook" in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    ran = kind in ("poststart", "poststop")
    assert (b"ran" in done.stdout) <= ran
    assert runtime.left() == []


def test_hook_that_floods(runtime: Runtime) -> None:
    """A program of the image that is run as a hook can't fill the runtime's memory."""
    script = "head -c 50000000 /dev/zero | tee /dev/stderr; echo the end >&2; exit 3"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 30}
    runtime.change({"hooks": {"startContainer": [hook]}}, "true")
    done = runtime("run", runtime.id)
    assert done.returncode == 1
    assert b"the end" in done.stderr
    assert len(done.stderr) < 4096
