"""What of a container's share of the host is limited, and what it may see: as the kernel has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.docker.conftest import IMAGE, Tool
from tests.docker.request import ask, value

pytestmark = pytest.mark.needs("root", "docker")
RATES = {"BlkioDeviceReadBps": "rbps", "BlkioDeviceWriteBps": "wbps"}
COUNTS = {"BlkioDeviceReadIOps": "riops", "BlkioDeviceWriteIOps": "wiops"}
OLD = {"rbps": "read_bps", "wbps": "write_bps", "riops": "read_iops", "wiops": "write_iops"}


@pytest.fixture
def disk() -> Path:
    """A whole disk of this machine."""
    for entry in sorted(Path("/sys/block").iterdir()):
        if (path := Path("/dev", entry.name)).is_block_device():
            return path
    pytest.skip("no block device has a node")


def group_of(tool: Tool, name: str, controller: str) -> tuple[Path, bool]:
    """Find a running container's control group, and whether it is of version 1."""
    lines = Path(f"/proc/{tool.ok('inspect', '-f', '{{.State.Pid}}', name)}/cgroup").read_text().splitlines()
    for line in lines:
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}"), True
    return Path(f"/sys/fs/cgroup{lines[-1].split(':', 2)[2]}"), False


def drop_groups(*paths: str) -> None:
    """Remove empty control groups from every hierarchy."""
    for path in paths:
        for place in Path("/sys/fs/cgroup").glob(f"*/{path}"):
            place.rmdir()
        if (unified := Path("/sys/fs/cgroup", path)).is_dir():
            unified.rmdir()


def test_devices_are_throttled(trivet: Tool, disk: Path) -> None:
    """Bytes and operations a second of a block device; what is none is refused."""
    host = {key: [{"Path": str(disk), "Rate": 1 << 20}] for key in RATES}
    host |= {key: [{"Path": str(disk), "Rate": 99}] for key in COUNTS}
    trivet.run("rm", "-f", "slow")
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "HostConfig": {**host, "NetworkMode": "none"}}
    value(trivet, "POST", "/containers/create", body, 201, name="slow")
    trivet.ok("start", "slow")
    number = f"{os.major(disk.stat().st_rdev)}:{os.minor(disk.stat().st_rdev)}"
    group, old = group_of(trivet, "slow", "blkio")
    for key, word in {**RATES, **COUNTS}.items():
        rate = host[key][0]["Rate"]
        if old:
            assert (group / f"blkio.throttle.{OLD[word]}_device").read_text() == f"{number} {rate}\n"
        else:
            assert f"{word}={rate}" in (group / "io.max").read_text()
    shown = value(trivet, "GET", "/containers/slow/json")["HostConfig"]
    assert {key: shown[key] for key in host} == host
    trivet.ok("rm", "-f", "slow")
    said = trivet.fails("create", "--device-read-bps", "/dev/null:1mb", IMAGE)
    assert "cannot give device /dev/null: it is not a block device" in said


def test_who_is_killed_and_where_memory_is(trivet: Tool) -> None:
    """The score of the kernel's killer, also of what exec adds, and the nodes of memory."""
    run = ["run", "-d", "--name", "scored", "--network", "none"]
    trivet.ok(*run, "--oom-score-adj", "123", "--cpuset-mems", "0", IMAGE, "sleep", "600")
    assert (
        trivet.ok("exec", "scored", "cat", "/proc/1/oom_score_adj", "/proc/self/oom_score_adj").split() == ["123"] * 2
    )
    assert "Mems_allowed_list:\t0" in trivet.ok("exec", "scored", "cat", "/proc/1/status")
    assert trivet.ok("inspect", "-f", "{{.HostConfig.OomScoreAdj}} {{.HostConfig.CpusetMems}}", "scored") == "123 0"
    trivet.ok("rm", "-f", "scored")


def test_swappiness_and_no_killer(trivet: Tool) -> None:
    """Both are set where control groups are version 1; where they are version 2 the start says why not."""
    run = ["run", "-d", "--name", "calm", "--network", "none", "-m", "64m"]
    done = trivet.run(*run, "--memory-swappiness", "7", "--oom-kill-disable", IMAGE, "sleep", "600")
    if done.returncode:
        assert b"version 2 of control groups has no such limit" in done.stderr
    else:
        group, _ = group_of(trivet, "calm", "memory")
        assert (group / "memory.swappiness").read_text() == "7\n"
        assert "oom_kill_disable 1" in (group / "memory.oom_control").read_text()
        assert trivet.ok("inspect", "-f", "{{.HostConfig.MemorySwappiness}}", "calm") == "7"
    trivet.ok("rm", "-f", "calm")
    body = {"Image": IMAGE, "HostConfig": {"MemorySwappiness": 101}}
    words = "valid memory swappiness range is 0-100"
    assert words in value(trivet, "POST", "/containers/create", body, 400)["message"]


def test_device_rules(trivet: Tool, disk: Path) -> None:
    """A node that a program makes can be opened only where a rule says so."""
    number = f"{os.major(disk.stat().st_rdev)} {os.minor(disk.stat().st_rdev)}"
    script = f"mknod /tmp/n b {number} && head -c0 /tmp/n"
    run = ["run", "--rm", "--network", "none", "--userns", "host"]
    assert trivet.run(*run, IMAGE, "sh", "-c", script).returncode != 0
    rule = ["--device-cgroup-rule", f"b {number.replace(' ', ':')} rm"]
    trivet.ok(*run, *rule, IMAGE, "sh", "-c", script)
    body = {"Image": IMAGE, "HostConfig": {"DeviceCgroupRules": ["x 1:2 rwm"]}}
    words = "invalid device cgroup rule format: 'x 1:2 rwm'"
    assert words in value(trivet, "POST", "/containers/create", body, 400)["message"]


def test_system_paths(trivet: Tool) -> None:
    """What of /proc is masked can be shown."""
    run, count = ["run", "--rm", "--network", "none"], ["grep", "-c", " /proc/", "/proc/mounts"]
    assert int(trivet.ok(*run, IMAGE, *count)) > 3
    assert trivet.run(*run, "--security-opt", "systempaths=unconfined", IMAGE, *count).stdout.strip() == b"0"
    for masked, read_only in (([], []), (["/proc/nothing"], ["/x"])):
        lists: dict[str, list[str]] = {"MaskedPaths": masked, "ReadonlyPaths": read_only}
        key = value(trivet, "POST", "/containers/create", {"Image": IMAGE, "HostConfig": lists}, 201)["Id"]
        shown = value(trivet, "GET", f"/containers/{key}/json")["HostConfig"]
        assert ("MaskedPaths" in shown) == (lists["MaskedPaths"] == [])
        ask(trivet, "DELETE", f"/containers/{key}", None, 204)


def test_the_parent_of_a_control_group(docker: Tool) -> None:
    """A container's group is below the parent asked for, however that is spelled, and goes with the container."""
    for parent in ("/trivet-parent/below", "trivet-parent/below"):
        run = ["run", "-d", "--name", "child", "--network", "none", "--cgroup-parent", parent, "-m", "64m"]
        key = docker.ok(*run, IMAGE, "sleep", "600")
        group, old = group_of(docker, "child", "memory")
        assert str(group).endswith(f"/trivet-parent/below/{key}")
        assert (group / ("memory.limit_in_bytes" if old else "memory.max")).read_text() == f"{64 << 20}\n"
        assert docker.ok("exec", "child", "echo", "still there") == "still there"
        assert docker.ok("inspect", "-f", "{{.HostConfig.CgroupParent}}", "child") == parent
        docker.ok("rm", "-f", "child")
        assert not group.exists()
    drop_groups("trivet-parent/below", "trivet-parent")


def test_a_parent_that_is_none(trivet: Tool) -> None:
    """What leads out of the control groups is refused, and nothing is made."""
    for parent in ("../elsewhere", "/a/./b", "a\nb"):
        body = {"Image": IMAGE, "HostConfig": {"CgroupParent": parent}}
        said = value(trivet, "POST", "/containers/create", body, 400)["message"]
        assert said.startswith("invalid parent of a control group: ")
    assert not trivet.ok("ps", "-aq", "--filter", "status=created", "--filter", f"ancestor={IMAGE}")
