"""A hostile config.json: one sentence with its place, no traceback, and nothing of a container left."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tests.runtime import GROUP, Runtime

from trivet.runtime import main

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.sampled_from([-1, 0, 1, 1 << 31, 1 << 32, 1 << 63, 1 << 64]),
    st.text(max_size=8),
    st.sampled_from(["/proc", "..", "/../x", "\0", "a" * 5000, "bind", "rro", "SCMP_ACT_NOTIFY", "/dev/null"]),
    st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)

NUMBERS = st.one_of(st.integers(-10, 1100), st.sampled_from([-1, 0, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1]))
TEXTS = st.sampled_from(["", "/", "..", "/etc", "ro", "rbind", "rslave", "tmpfs", "proc", "0-1", "CAP_KILL", "7"])
SIMILAR: dict[type, st.SearchStrategy[Any]] = {int: NUMBERS, str: TEXTS, bool: st.booleans()}

# What a configuration may change at most: each place is one that another test exercises.
RICH: dict[str, Any] = {
    "domainname": "example.org",
    "annotations": {"a": "b"},
    "hooks": {"prestart": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]},
    "process": {
        "user": {"uid": 1, "gid": 1, "umask": 18, "additionalGids": [2]},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        "oomScoreAdj": 100,
        "scheduler": {"policy": "SCHED_BATCH", "nice": 1},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
    },
    "linux": {
        "sysctl": {"net.core.somaxconn": "100"},
        "personality": {"domain": "LINUX"},
        "rootfsPropagation": "rslave",
        "devices": [{"type": "c", "path": "/dev/x", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}],
        "resources": {
            "memory": {"limit": 1 << 28, "swappiness": 10},
            "cpu": {"shares": 100, "quota": 50000, "period": 100000},
            "pids": {"limit": 50},
            "blockIO": {"throttleReadBpsDevice": [{"major": 7, "minor": 0, "rate": 1000000}]},
        },
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {
                    "names": ["acct"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 1,
                    "args": [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
                }
            ],
        },
    },
}
# Never changed: they say where on this machine the test takes place.
FIXED = {"root", "cgroupsPath", "namespaces"}


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List where something can be changed."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [at] if at else []
    for key, part in inner:
        if key not in FIXED:
            found += places(part, (*at, key))
    return found


@settings(
    max_examples=int(os.environ.get("TRIVET_FUZZ", "250")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_changed_anywhere(runtime: Runtime, capfd: pytest.CaptureFixture[str], data: st.DataObject) -> None:
    """Whatever stands at whichever place, the container runs or is refused by one sentence, and nothing is left."""
    config = rich(runtime)
    place = data.draw(st.sampled_from(places(config)))
    target = config
    for key in place[:-1]:
        target = target[key]
    kind = type(target[place[-1]])
    target[place[-1]] = data.draw(st.one_of(SIMILAR.get(kind, VALUES), SIMILAR.get(kind, VALUES), VALUES))
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    capfd.readouterr()
    code = main.main(["--root", str(runtime.root), "run", "--bundle", str(runtime.bundle), runtime.id])
    said = capfd.readouterr().err
    event(f"exit code {code}")
    assert code in (0, 1), said
    assert "Traceback" not in said
    if code:
        assert 1 <= len([line for line in said.splitlines() if "warning" not in line and "hint" not in line]) <= 1, said
    assert runtime.clean()


@pytest.fixture(autouse=True)
def outside(runtime: Runtime) -> None:
    """An example is made once for all."""
    runtime.change(RICH, "true")


def rich(runtime: Runtime) -> dict[str, Any]:
    """Give a configuration with much in it."""
    config: dict[str, Any] = json.loads(RICH_TEXT.get(runtime.id) or (runtime.bundle / "config.json").read_text())
    RICH_TEXT.setdefault(runtime.id, json.dumps(config))
    return copy.deepcopy(config)


RICH_TEXT: dict[str, str] = {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"annotations": {"big": "x" * (10 << 20)}}, ""),
        ({"linux": {"cgroupsPath": "/"}}, "$.linux.cgroupsPath"),
        ({"linux": {"cgroupsPath": "/../.."}}, "$.linux.cgroupsPath"),
        ({"root": {"path": "../../../../etc/passwd"}}, "does not exist"),
        ({"root": {"path": "\0"}}, "$.root.path"),
        ({"mounts": [{"destination": "/proc/../../../x", "type": "tmpfs", "source": "tmpfs"}]}, ""),
        ({"mounts": [{"destination": "/a" * 3000, "type": "tmpfs", "source": "tmpfs"}]}, "name too long"),
        ({"process": {"cwd": "/proc/self/fd/7"}}, "working directory"),
        ({"process": {"args": []}}, "process.args"),
        ({"process": {"args": ["x" * (3 << 20)]}}, "cannot execute"),
        ({"process": {"rlimits": [{"type": "RLIMIT_X", "soft": 0, "hard": 0}]}}, "$.process.rlimits[0]"),
        ({"process": {"oomScoreAdj": 5000}}, "$.process.oomScoreAdj"),
        ({"hooks": {"prestart": [{"path": "relative"}]}}, "$.hooks.prestart[0].path"),
        ({"hooks": {"poststop": [{"path": "/x", "timeout": 0}]}}, "$.hooks.poststop[0].timeout"),
        ({"linux": {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}}, "$.linux.uidMappings"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "mount"}]}}, "$.linux.namespaces[1]"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}]}}, "$.linux.uidMappings"),
        ({"linux": {"resources": {"memory": {"swappiness": 101}}}}, "$.linux.resources.memory.swappiness"),
        ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NO"}}}, "SCMP_ACT_NO"),
        ({"linux": {"seccomp": {"defaultAction": "\x1b[2J\nx"}}}, r"\x1b[2J\x0ax"),
    ],
)
def test_hostile(runtime: Runtime, change: dict[str, Any], words: str) -> None:
    """Known attacks and mistakes."""
    runtime.change(change, *(change.get("process", {}).get("args", ["true"])))
    done = runtime("run", runtime.id)
    assert b"Traceback" not in done.stderr
    assert done.returncode == (1 if words else 0), done
    assert words.lower() in done.stderr.decode().lower()
    assert runtime.left() == []
    assert not (runtime.bundle.parent / "x").exists()


def test_links_in_the_image(runtime: Runtime, tmp_path: Path) -> None:
    """Directories of the image that are links lead nowhere outside of it."""
    canary = tmp_path / "canary"
    canary.mkdir()
    root = runtime.bundle / "rootfs"
    for name in ("dev", "proc", "sys", "data"):
        (root / name).rmdir()
        (root / name).symlink_to(canary)
    mounts = runtime.example()["mounts"]
    mounts.append({"destination": "/data/made", "type": "tmpfs", "source": "tmpfs"})
    runtime.change({"mounts": mounts}, "true")
    runtime("run", runtime.id)
    assert list(canary.iterdir()) == []
    assert runtime.left() == []


def test_group_of_others(runtime: Runtime) -> None:
    """A control group that others are in is not taken: they would be killed with the container."""
    runtime.change({}, "sleep", "60")
    assert runtime("run", "--detach", runtime.id).returncode == 0
    done = runtime("run", "another")
    assert done.returncode == 1
    assert b"already holds processes" in done.stderr
    assert runtime.json("state", runtime.id)["status"] == "running"
    assert Path("/sys/fs/cgroup/pids", GROUP, runtime.id).is_dir()
