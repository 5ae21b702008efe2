"""`--systemd-cgroup`, where systemd is PID 1; elsewhere tests/vm/test_unified.py runs this in a guest."""

from __future__ import annotations

import json
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime import COMMAND, Runtime, bundle

ROOT = Path("/sys/fs/cgroup")
pytestmark = pytest.mark.skipif(not Path("/run/systemd/system").exists(), reason="systemd is not PID 1")
MEBIBYTE = 1 << 20


def ctl(*words: str) -> str:
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def show(unit: str, *names: str) -> list[str]:
    """Ask systemd for properties of a unit, in the order they are named."""
    lines = ctl("show", unit, *(f"-p{name}" for name in names)).splitlines()
    found = dict(line.split("=", 1) for line in lines)
    return [found[name] for name in names]


def configure(runtime: Runtime, path: str, limits: dict[str, Any], **more: Any) -> None:
    runtime.change({"linux": {"cgroupsPath": path, "resources": limits}, **more}, "sleep", "60")


def test_limits_of_a_scope(runtime: Runtime) -> None:
    """A scope in its slice has the limits as properties and as files, after a reload and an update."""
    limits = {
        "memory": {"limit": 64 * MEBIBYTE, "reservation": 32 * MEBIBYTE, "swap": 96 * MEBIBYTE},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0-1", "mems": "0"},
        "pids": {"limit": 33},
        "devices": [{"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
        "unified": {"memory.high": str(48 * MEBIBYTE)},
    }
    unit = f"ours-{runtime.id}.scope"
    notes = {
        "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
    }
    configure(runtime, f"one-two.slice:ours:{runtime.id}", limits, annotations=notes)
    done = runtime("--systemd-cgroup", "run", "--detach", runtime.id)
    assert done.returncode == 0, done
    pid = runtime.json("state", runtime.id)["pid"]
    group = ROOT / f"one.slice/one-two.slice/{unit}"
    assert Path(f"/proc/{pid}/cgroup").read_text() == f"0::/one.slice/one-two.slice/{unit}\n"
    assert (group / "cgroup.procs").read_text().split() == [str(pid)]

    numbers = [str(count * MEBIBYTE) for count in (64, 32, 32)]
    assert show(unit, "MemoryMax", "MemoryLow", "MemorySwapMax") == numbers
    names = ["CPUWeight", "CPUQuotaPerSecUSec", "TasksMax", "AllowedCPUs", "AllowedMemoryNodes", "Delegate"]
    assert show(unit, *names) == ["20", "500ms", "33", "0-1", "0", "yes"]
    names = ["Slice", "DevicePolicy", "TimeoutStopUSec", "CollectMode", "ActiveState"]
    assert show(unit, *names) == ["one-two.slice", "strict", "7s", "inactive-or-failed", "active"]
    assert "/dev/char/10:229 rw" in show(unit, "DeviceAllow")[0]

    ctl("daemon-reload")
    files = ("memory.max", "memory.high", "cpu.max", "cpuset.cpus", "pids.max")
    wanted = [str(64 * MEBIBYTE), str(48 * MEBIBYTE), "50000 100000", "0-1", "33"]
    assert [(group / name).read_text().strip() for name in files] == wanted
    assert runtime("exec", runtime.id, "dd", "if=/dev/null", "of=/dev/zero").returncode == 0

    words = ("--memory", "80m", "--memory-swap", "80m", "--pids-limit", "-1", "--cpu-quota", "-1", "--cpuset-cpus", "0")
    done = runtime("--systemd-cgroup", "update", *words, runtime.id)
    assert done.returncode == 0, done
    names = ["MemoryMax", "MemorySwapMax", "TasksMax", "CPUQuotaPerSecUSec", "AllowedCPUs", "CPUWeight"]
    assert show(unit, *names) == [str(80 * MEBIBYTE), "0", "infinity", "infinity", "0", "20"]
    assert [(group / name).read_text().strip() for name in ("memory.max", "pids.max")] == [str(80 * MEBIBYTE), "max"]

    configure(runtime, f"one-two.slice:ours:{runtime.id}", {})
    again = runtime("--systemd-cgroup", "run", "--detach", "another")
    assert again.returncode == 1
    assert b"already" in again.stderr
    assert runtime("delete", "--force", runtime.id).returncode == 0
    assert show(unit, "LoadState") == ["not-found"]
    assert not group.exists()


def test_end_of_a_scope(runtime: Runtime) -> None:
    """Without a name of its own the unit is in system.slice; it ends with the program."""
    configure(runtime, "", {})
    unit = f"trivet-{runtime.id}.scope"
    assert runtime("--systemd-cgroup", "run", "--detach", runtime.id).returncode == 0
    assert show(unit, "ControlGroup") == [f"/system.slice/{unit}"]
    ctl("kill", "--signal=KILL", unit)
    runtime.until("stopped")
    assert runtime("delete", runtime.id).returncode == 0
    assert runtime.left() == []


def test_users_of_its_own(runtime: Runtime) -> None:
    """A container with a user namespace is put into its scope from outside, and owns what is below it."""
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    runtime.change({"linux": {"cgroupsPath": f":ours:{runtime.id}", "uidMappings": maps, "gidMappings": maps}}, "sh")
    path = runtime.bundle / "config.json"
    config = json.loads(path.read_text())
    config["process"]["args"] = ["sh", "-c", "cat /proc/self/cgroup; mkdir /sys/fs/cgroup/below && echo made"]
    config["linux"]["namespaces"].append({"type": "user"})
    for mount in config["mounts"]:
        mount["options"] = [word for word in mount.get("options", []) if mount["type"] != "cgroup" or word != "ro"]
    path.write_text(json.dumps(config))
    done = runtime("--systemd-cgroup", "run", runtime.id)
    assert done.stdout.split() == [b"0::/", b"made"], done
    assert show(f"ours-{runtime.id}.scope", "LoadState") == ["not-found"]


@pytest.fixture
def person() -> Iterator[int]:
    """An ordinary user with a systemd of their own."""
    subprocess.run(["useradd", "--create-home", "person"], check=True, timeout=60)
    uid = pwd.getpwnam("person").pw_uid
    ctl("start", f"user@{uid}.service")
    yield uid
    ctl("stop", f"user@{uid}.service")
    subprocess.run(["userdel", "--remove", "person"], check=True, timeout=60, capture_output=True)


def test_an_ordinary_user(person: int) -> None:
    """The systemd of a user's session makes their container's scope, with limits, and moves exec's program there."""
    place = bundle(Path(tempfile.mkdtemp(dir="/home/person")))
    subprocess.run(["chown", "-R", "person:", place], check=True)
    session = f"/run/user/{person}"
    become: list[str | Path] = ["setpriv", f"--reuid={person}", f"--regid={person}", "--clear-groups"]
    become += ["env", f"XDG_RUNTIME_DIR={session}", COMMAND]

    def run(*words: str) -> subprocess.CompletedProcess[bytes]:
        with tempfile.TemporaryFile() as out:
            command = [*become, *words]
            done = subprocess.run(command, cwd=place, stdout=out, stderr=out, stdin=subprocess.DEVNULL, timeout=60)
            out.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, out.read())

    assert run("spec", "--rootless").returncode == 0
    config = json.loads((place / "config.json").read_text())
    config["process"] |= {"args": ["sleep", "60"], "terminal": False}
    config["linux"] |= {"resources": {"pids": {"limit": 20}}, "cgroupsPath": "app.slice:ours:mine"}
    (place / "config.json").write_text(json.dumps(config))
    done = run("--systemd-cgroup", "run", "--detach", "mine")
    assert done.returncode == 0, done
    group = ROOT / f"user.slice/user-{person}.slice/user@{person}.service/app.slice/ours-mine.scope"
    assert (group / "pids.max").read_text() == "20\n"
    assert len((group / "cgroup.procs").read_text().split()) == 1
    done = run("exec", "mine", "sh", "-c", "cat /proc/self/cgroup")
    assert done.stdout == b"0::/\n", done
    done = run("update", "--pids-limit", "10", "mine")
    assert ((group / "pids.max").read_text(), done.returncode) == ("10\n", 0), done
    assert run("delete", "--force", "mine").returncode == 0
    assert not group.exists()


@pytest.mark.parametrize(
    ("path", "notes", "said"),
    [
        ("/no/unit", {}, "slice:prefix:name"),
        ("a--b.slice:x:y", {}, "slice:prefix:name"),
        ("a/b.slice:x:y", {}, "slice:prefix:name"),
        ("", {"org.systemd.property.TimeoutStopUSec": "soon"}, "org.systemd.property.TimeoutStopUSec"),
        ("", {"org.systemd.property.NoSuchThing": "true"}, "NoSuchThing"),
    ],
)
def test_refused(runtime: Runtime, path: str, notes: dict[str, str], said: str) -> None:
    """What is no unit's name or property is refused by name, and nothing is left."""
    configure(runtime, path, {}, annotations=notes)
    done = runtime("--systemd-cgroup", "run", runtime.id)
    assert done.returncode == 1
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert runtime.left() == []
