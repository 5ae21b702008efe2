"""Control groups where version 2 is all there is; elsewhere tests/vm/test_unified.py runs this in a guest."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.case import BLOCK
from tests.runtime import GROUP, Runtime, until

ROOT = Path("/sys/fs/cgroup")
pytestmark = pytest.mark.skipif(not (ROOT / "cgroup.controllers").exists(), reason="not version 2 only")
MEBIBYTE = 1 << 20
OWN_USERS = [{"containerID": 0, "hostID": 100000, "size": 65536}]
WANTED = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_ADMIN", "CAP_SETGID", "CAP_SETPCAP"),
    *("CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT"),
)
SETS = ("bounding", "effective", "inheritable", "permitted")


def resources(**fields: Any) -> dict[str, Any]:
    return {"linux": {"resources": fields}}


def began(runtime: Runtime, changes: dict[str, Any], *argv: str) -> Path:
    """Start a container; gives its control group."""
    runtime.change(changes, *(argv or ("sleep", "60")))
    done = runtime("run", "--detach", runtime.id)
    assert done.returncode == 0, done
    return ROOT / GROUP / runtime.id


def read(group: Path, *names: str) -> list[str]:
    return [" ".join((group / name).read_text().split()) for name in names]


def test_limits_of_every_controller(runtime: Runtime) -> None:
    """Each limit is in its file of version 2; what a running container is given by update, too."""
    throttles = ("throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice")
    group = began(
        runtime,
        resources(
            memory={"limit": 64 * MEBIBYTE, "reservation": 32 * MEBIBYTE, "swap": 96 * MEBIBYTE},
            cpu={"shares": 512, "quota": 50000, "period": 100000, "burst": 1000, "cpus": "0", "mems": "0"},
            pids={"limit": 33},
            blockIO={
                "weight": 505,
                **{name: [BLOCK | {"rate": MEBIBYTE + number}] for number, name in enumerate(throttles)},
            },
            hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MEBIBYTE}],
            unified={"memory.high": str(48 * MEBIBYTE), "cgroup.max.descendants": "7"},
        ),
    )
    numbers = [str(count * MEBIBYTE) for count in (64, 32, 32, 48)]
    assert read(group, "memory.max", "memory.low", "memory.swap.max", "memory.high") == numbers
    assert read(group, "cpu.weight", "cpu.max", "cpu.max.burst") == ["20", "50000 100000", "1000"]
    assert read(group, "cpuset.cpus", "cpuset.mems", "pids.max", "cgroup.max.descendants") == ["0", "0", "33", "7"]
    [weight, limits] = read(group, "io.weight", "io.max")
    assert weight == "default 5000"
    assert limits.split()[1:] == [f"{name}={MEBIBYTE + n}" for n, name in enumerate(("rbps", "wbps", "riops", "wiops"))]
    assert read(group, "hugetlb.2MB.max") == [str(4 * MEBIBYTE)]

    words = (
        "--memory",
        "80m",
        "--memory-swap",
        "80m",
        "--pids-limit",
        "-1",
        "--cpu-quota",
        "-1",
        "--cpu-share",
        "1024",
    )
    assert runtime("update", *words, "--cpuset-cpus", "0-1", "--blkio-weight", "10", runtime.id).returncode == 0
    assert read(group, "memory.max", "memory.swap.max", "pids.max") == [str(80 * MEBIBYTE), "0", "max"]
    assert read(group, "cpu.max", "cpu.weight", "cpuset.cpus", "io.weight") == ["max 100000", "39", "0-1", "default 1"]
    raw = json.dumps({"unified": {"memory.high": "max"}, "cpu": {"idle": 1}}).encode()
    assert runtime("update", "--resources", "-", runtime.id, stdin=raw).returncode == 0
    assert read(group, "memory.high", "cpu.idle") == ["max", "1"]


def test_pause_measure_and_delete(runtime: Runtime) -> None:
    """A container is frozen and thawed as a whole, measured, killed while frozen, and leaves no group."""
    group = began(runtime, resources(pids={"limit": 20}), "sh", "-c", "while sleep 0.1; do :; done")
    assert runtime("pause", runtime.id).returncode == 0
    assert (runtime.json("state", runtime.id)["status"], read(group, "cgroup.freeze")) == ("paused", ["1"])
    used = (group / "cpu.stat").read_text()
    data = runtime.json("events", "--stats", runtime.id)["data"]
    assert (group / "cpu.stat").read_text() == used
    assert data["cpu"]["usage"]["total"] == int(used.split()[1]) * 1000 > 0
    assert data["memory"]["usage"]["usage"] > 0
    assert data["pids"]["limit"] == 20
    assert runtime("resume", runtime.id).returncode == 0
    assert read(group, "cgroup.freeze") == ["0"]
    until(lambda: (group / "cpu.stat").read_text() != used)
    (group / "cgroup.freeze").write_text("1")
    assert runtime("delete", "--force", runtime.id).returncode == 0
    assert runtime.clean()


def test_memory_that_ran_out(runtime: Runtime) -> None:
    """What the kernel kills for want of memory is an event, and kills the one process only."""
    memory = {"limit": 16 * MEBIBYTE, "swap": 16 * MEBIBYTE}
    script = "while ! test -e /tmp/go; do sleep 0.2; done; dd if=/dev/zero of=/dev/null bs=40M count=1; sleep 0.5"
    began(runtime, resources(memory=memory) | {"root": {"readonly": False}}, "sh", "-c", script)
    command = [runtime.command, "--root", runtime.root, "events", "--interval", "1m", runtime.id]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as events:
        assert events.stdout
        words = [json.loads(events.stdout.readline())["type"]]
        (runtime.bundle / "rootfs/tmp/go").touch()
        words += [json.loads(line)["type"] for line in events.stdout]
    assert words == ["stats", "oom"]


def test_devices(runtime: Runtime) -> None:
    """The program of the group allows what the rules allow, to a container that may make any node."""
    rules = [{"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}]
    capabilities = {name: ["CAP_MKNOD", "CAP_SYSLOG"] for name in SETS}
    script = """
        cd /tmp; mknod kmsg c 1 11; mknod mem c 1 1; mknod null c 1 3
        head -c 1 < kmsg > /dev/null && echo read; echo x > kmsg; cat mem; echo y > null && echo wrote
    """
    changes = resources(devices=rules) | {"root": {"readonly": False}, "process": {"capabilities": capabilities}}
    runtime.change(changes, "sh", "-c", script)
    done = runtime("run", runtime.id)
    assert done.stdout.split() == [b"read", b"wrote"], done
    assert done.stderr.count(b"Operation not permitted") == 2, done


@pytest.mark.parametrize("access", ["ro", "rw"])
def test_delegation(runtime: Runtime, access: str) -> None:
    """With users and a writable tree of its own a container makes groups below its own, and raises no limit."""
    script = """
        cd /sys/fs/cgroup; cat /proc/self/cgroup; stat -c %u . cgroup.procs cgroup.subtree_control cgroup.threads
        mkdir inner && echo 0 > inner/cgroup.procs && echo +pids > cgroup.subtree_control && echo 5 > inner/pids.max &&
        cat inner/pids.max; (echo max > pids.max) 2>&1 | tail -1; ls -d inner
    """
    runtime.change(resources(pids={"limit": 30}), "sh", "-c", script)
    path = runtime.bundle / "config.json"
    config = json.loads(path.read_text())
    config["linux"] |= {"uidMappings": OWN_USERS, "gidMappings": OWN_USERS}
    config["linux"]["namespaces"] = [
        {"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network", "cgroup", "user")
    ]
    for mount in config["mounts"]:
        if mount["type"] == "cgroup":
            mount["options"] = ["nosuid", "noexec", "nodev", access]
    path.write_text(json.dumps(config))
    done = runtime("run", runtime.id)
    said = done.stdout.decode().splitlines()
    assert said[:1] == ["0::/"], done
    if access == "rw":
        assert said[1:5] == ["0"] * 4, done
        assert (said[5], said[-1]) == ("5", "inner"), done
        assert "Permission denied" in said[6]
    else:
        assert said[1:5] == ["65534"] * 4
        assert "inner" not in said
    assert runtime.clean()


@pytest.mark.parametrize(
    ("limit", "path"),
    [
        ({"memory": {"swappiness": 10}}, "memory.swappiness"),
        ({"cpu": {"realtimeRuntime": 1000}}, "cpu.realtimeRuntime"),
        ({"network": {"classID": 1}}, "network.classID"),
        ({"unified": {"no.such": "1"}}, "unified"),
    ],
)
def test_refused(runtime: Runtime, limit: dict[str, Any], path: str) -> None:
    """What version 2 has no limit for is refused by name, and nothing is left."""
    runtime.change(resources(**limit), "true")
    assert f"$.linux.resources.{path}" in runtime("run", runtime.id).stderr.decode()
    assert runtime.clean()


def test_systemd_inside(runtime: Runtime) -> None:
    """A container whose program is systemd starts its units, each in a control group below the container's."""
    runtime.change({}, "/sbin/init", "--unit=basic.target", "--log-target=null")
    path = runtime.bundle / "config.json"
    config = json.loads(path.read_text())
    config["root"] = {"path": "/", "readonly": True}
    config["process"]["env"] = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=trivet"]
    config["process"]["capabilities"] = {name: [*WANTED] for name in SETS}
    config["linux"] |= {"uidMappings": OWN_USERS, "gidMappings": OWN_USERS, "maskedPaths": [], "readonlyPaths": []}
    kinds = ("pid", "mount", "ipc", "uts", "network", "cgroup", "user")
    config["linux"]["namespaces"] = [{"type": kind} for kind in kinds]
    for mount in config["mounts"]:
        if mount["type"] == "cgroup":
            mount["options"] = ["nosuid", "noexec", "nodev", "rw"]
    config["mounts"] += [
        {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}
        for place in ("/run", "/tmp", "/var/lib", "/var/log")
    ]
    path.write_text(json.dumps(config))
    done = runtime("run", "--detach", runtime.id)
    assert done.returncode == 0, done
    group = ROOT / GROUP / runtime.id
    until(lambda: runtime("exec", runtime.id, "systemctl", "is-active", "basic.target").stdout == b"active\n", 60)
    assert [pid for pid in read(group, "init.scope/cgroup.procs") if pid]
    assert (group / "system.slice").is_dir()
    assert read(group, "cgroup.procs") == [""]
    assert runtime("delete", "--force", runtime.id).returncode == 0
    assert runtime.clean()
