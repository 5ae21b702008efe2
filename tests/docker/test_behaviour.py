"""How containers behave, step by step: the same at trivet and at dockerd."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest
from tests.docker.conftest import IMAGE, Tool
from tests.docker.request import ask, value

pytestmark = pytest.mark.needs("root", "docker")
ONE = "/containers/behave"


@pytest.fixture
def behave(docker: Tool) -> Iterator[Tool]:
    """An engine whose container `behave` goes afterwards."""
    yield docker
    docker.run("rm", "-f", "behave")


def create(tool: Tool, *command: str, host: dict[str, Any] | None = None, **more: Any) -> str:
    """Create the container without network; its id."""
    body = {"Image": IMAGE, "Cmd": list(command), "HostConfig": {"NetworkMode": "none", **(host or {})}, **more}
    key: str = value(tool, "POST", "/containers/create", body, 201, name="behave")["Id"]
    return key


def state(tool: Tool) -> dict[str, Any]:
    """The container's state."""
    found: dict[str, Any] = value(tool, "GET", f"{ONE}/json")["State"]
    return found


def test_a_wait_for_a_removal_by_itself(behave: Tool) -> None:
    """Who waits for the removal of what removes itself hears the exit code; what wasn't started yet has ended well."""
    create(behave, "sh", "-c", "exit 6", host={"AutoRemove": True})
    assert value(behave, "POST", f"{ONE}/wait")["StatusCode"] == 0
    heard: dict[str, Any] = {}
    waiting = threading.Thread(
        target=lambda: heard.update(value(behave, "POST", f"{ONE}/wait", condition="removed")), daemon=True
    )
    waiting.start()
    time.sleep(0.3)
    ask(behave, "POST", f"{ONE}/start", None, 204)
    waiting.join(30)
    assert heard["StatusCode"] == 6
    ask(behave, "GET", f"{ONE}/json", None, 404)


def test_a_start_that_fails(behave: Tool) -> None:
    """A program that isn't there is told at the start, and leaves its exit code."""
    create(behave, "/nosuch")
    content, _ = ask(behave, "POST", f"{ONE}/start", None, (400, 404))
    assert b"no such file or directory" in content or b"executable file not found" in content
    assert (state(behave)["Status"], state(behave)["ExitCode"]) == ("created", 127)


def test_pausing_stopping_killing(behave: Tool) -> None:
    """What is paused can be stopped; a kill is no end for what always restarts, but a signal is one that it wants."""
    create(behave, "sleep", "600", host={"RestartPolicy": {"Name": "no"}})
    ask(behave, "POST", f"{ONE}/start", None, 204)
    ask(behave, "POST", f"{ONE}/pause", None, 204)
    ask(behave, "POST", f"{ONE}/pause", None, 409)
    assert state(behave)["Paused"] is True
    ask(behave, "POST", f"{ONE}/stop", None, 204, t="1")
    assert (state(behave)["Status"], state(behave)["ExitCode"], state(behave)["Paused"]) == ("exited", 137, False)
    value(behave, "POST", f"{ONE}/update", {"RestartPolicy": {"Name": "always"}})
    assert value(behave, "GET", f"{ONE}/json")["HostConfig"]["RestartPolicy"]["Name"] == "always"
    ask(behave, "POST", f"{ONE}/restart", None, 204, t="0")
    pid = state(behave)["Pid"]
    assert pid > 0
    ask(behave, "POST", f"{ONE}/kill", None, 204)
    assert state(behave)["Status"] in ("exited", "running", "restarting")


def test_what_a_path_is(behave: Tool) -> None:
    """A HEAD tells name, type and target of a path; a link's target is a path inside."""
    create(behave, "sleep", "600")
    ask(behave, "POST", f"{ONE}/start", None, 204)

    def told(path: str) -> dict[str, Any]:
        _, answer = ask(behave, "HEAD", f"{ONE}/archive", path=path)
        found: dict[str, Any] = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
        return {key: found[key] for key in ("name", "mode", "linkTarget")}

    assert told("/tmp") == {"name": "tmp", "mode": 1 << 31 | 1 << 20 | 0o777, "linkTarget": ""}
    assert told("/bin/sh") == {"name": "sh", "mode": 1 << 27 | 0o777, "linkTarget": "/bin/busybox"}
    ask(behave, "HEAD", f"{ONE}/archive", None, 404, path="/nosuch")


def test_measurements(behave: Tool) -> None:
    """One sample at once, or one that can be compared with the one before it; no network, no traffic."""
    create(behave, "sleep", "600")
    ask(behave, "POST", f"{ONE}/start", None, 204)
    once = value(behave, "GET", f"{ONE}/stats", stream="0", **{"one-shot": "1"})
    assert (once["precpu_stats"]["cpu_usage"]["total_usage"], once["preread"]) == (0, "0001-01-01T00:00:00Z")
    assert "networks" not in once
    assert once["memory_stats"]["usage"] > 0
    assert value(behave, "GET", f"{ONE}/stats", stream="0")["precpu_stats"]["system_cpu_usage"] > 0
    for arguments, titles in (("", None), ("-o pid,comm", ["PID", "COMMAND"]), ("-eo pid,args", ["PID", "COMMAND"])):
        shown = value(behave, "GET", f"{ONE}/top", ps_args=arguments)
        assert shown["Titles"] == (titles or ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"])
        assert len(shown["Processes"]) == 1


def test_processes(behave: Tool) -> None:
    """Whatever ps is asked, its own answer comes, of the container's processes alone."""
    create(behave, "sh", "-c", "sleep 600 & exec sleep 601")
    ask(behave, "POST", f"{ONE}/start", None, 204)
    deadline, seen = time.monotonic() + 60, dict[str, str]()
    while sorted(seen.values()) != ["sleep 600", "sleep 601"]:
        assert time.monotonic() < deadline, seen
        seen = {row[1]: row[-1] for row in value(behave, "GET", f"{ONE}/top")["Processes"]}
    pids = set(seen)
    for arguments, titles in (
        ("aux", ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]),
        ("-eo pid,rss,cmd --sort=-rss", ["PID", "RSS", "CMD"]),
        ("--forest", ["PID", "TTY", "TIME", "CMD"]),
        ("-o pid,etime,nlwp,args", ["PID", "ELAPSED", "NLWP", "COMMAND"]),
    ):
        shown = value(behave, "GET", f"{ONE}/top", ps_args=arguments)
        assert shown["Titles"] == titles
        if arguments != "--forest":  # whose default is the caller's terminal, or everybody without one
            place = titles.index("PID")
            assert {row[place] for row in shown["Processes"]} == pids
            assert all("sleep 60" in row[-1] for row in shown["Processes"])
    refusals = {
        "--nonsense": "ps: error: unknown gnu long option",
        "aux -o user": "ps: error: conflicting format options",
        "-eo x=PID,pid": 'specifying "x=PID,pid" is not allowed',
    }
    for arguments, words in refusals.items():
        status = 500 if behave.name == "dockerd" else 400
        assert words in value(behave, "GET", f"{ONE}/top", None, status, ps_args=arguments)["message"]


def test_events_of_everything(behave: Tool) -> None:
    """Whatever is done with a container, an image or a volume is told, with what it was done with."""
    begun = time.time() - 0.001
    create(behave, "sleep", "600", Tty=True, Labels={"k": "v"})
    ask(behave, "POST", f"{ONE}/start", None, 204)
    ask(behave, "POST", f"{ONE}/resize", h="20", w="50")
    made = value(behave, "POST", f"{ONE}/exec", {"Cmd": ["true"]}, 201)["Id"]
    ask(behave, "POST", f"/exec/{made}/start", {"Detach": True})
    while value(behave, "GET", f"/exec/{made}/json")["Running"]:
        time.sleep(0.02)
    ask(behave, "POST", f"{ONE}/rename", None, 204, name="behave2")
    ask(behave, "POST", "/containers/behave2/rename", None, 204, name="behave")
    for verb in ("pause", "unpause"):
        ask(behave, "POST", f"{ONE}/{verb}", None, 204)
    value(behave, "GET", f"{ONE}/top")
    ask(behave, "GET", f"{ONE}/archive", path="/etc")
    ask(behave, "POST", f"{ONE}/kill", None, 204, signal="WINCH")
    ask(behave, "POST", f"{ONE}/stop", None, 204, t="0")
    ask(behave, "GET", f"{ONE}/export")
    value(behave, "POST", f"{ONE}/update", {"CpuShares": 100})
    value(behave, "POST", "/commit", {}, 201, container="behave", repo="behave", tag="1")
    ask(behave, "POST", "/images/behave:1/tag", None, 201, repo="behave", tag="2")
    for tag in "21":
        ask(behave, "DELETE", f"/images/behave:{tag}")
    ask(behave, "DELETE", ONE, None, 204)
    value(behave, "POST", "/volumes/create", {"Name": "behave-v"}, 201)
    ask(behave, "DELETE", "/volumes/behave-v", None, 204)
    time.sleep(0.2)
    content, _ = ask(behave, "GET", "/events", since=f"{begun:.6f}", until=f"{time.time():.6f}")
    found = [json.loads(line) for line in content.splitlines()]
    rows = [f"{row['Type']} {row['Action'].partition(':')[0]}" for row in found]
    done = [row for row, _ in groupby(row for row in rows if row.startswith("container"))]  # dockerd kills twice
    assert done == [
        f"container {action}"
        for action in (
            *("create", "start", "resize", "exec_create", "exec_start", "exec_die", "rename", "pause", "unpause"),
            *("top", "archive-path", "kill", "die", "stop", "export", "update", "commit", "destroy"),
        )
    ]
    assert {"image tag", "image untag", "image delete", "volume create", "volume destroy"} <= set(rows)
    by_action = {row["Action"].partition(":")[0]: row["Actor"]["Attributes"] for row in found}
    assert {"execID", "exitCode", "image", "name", "k"} <= by_action["exec_die"].keys()
    assert by_action["exec_start"]["execID"] == made
    assert (by_action["resize"]["height"], by_action["resize"]["width"]) == ("20", "50")
    assert by_action["rename"]["oldName"] == "/behave2"
    assert by_action["die"]["exitCode"] == "137"
    signals = [row["Actor"]["Attributes"]["signal"] for row in found if row["Action"] == "kill"]
    assert (signals[0], signals[-1]) == ("28", "9")
    assert next(row["Actor"] for row in found if row["Type"] == "volume")["Attributes"]["driver"] == "local"


def test_names_of_control_groups(docker: Tool) -> None:
    """With --cgroupns host a program sees its control group by the host's name, and otherwise itself at the top."""
    line = ["run", "--rm", "--network", "none"]
    script = "cat /proc/1/cgroup; echo; find /sys/fs/cgroup -name cgroup.procs"
    seen = docker.ok(*line, "--cgroupns", "host", IMAGE, "sh", "-c", script)
    assert re.search(r"(:pids:|0::)/\w+/\w+", seen)
    assert "/cgroup.procs" in seen
    alone = docker.ok(*line, "--cgroupns", "private", IMAGE, "sh", "-c", script)
    assert re.search(r"(:pids:|0::)/\n", alone)
    shown, private = (len(re.findall("cgroup.procs", text)) for text in (seen, alone))
    assert shown == private


def test_what_a_program_used(behave: Tool) -> None:
    """Time in the kernel and outside it, periods of a limit, and what each interface carried."""
    busy = "while :; do dd if=/dev/zero of=/dev/null bs=1 count=9999; done"
    little = 20_000_000  # is had on a busy machine, too
    host = {"NetworkMode": "bridge", "NanoCpus": little, "CapAdd": ["NET_RAW"]}
    create(behave, "sh", "-c", busy, host=host)
    ask(behave, "POST", f"{ONE}/start", None, 204)
    deadline = time.monotonic() + 60
    while True:
        seen = value(behave, "GET", f"{ONE}/stats", stream="0", **{"one-shot": "1"})
        used, throttled = seen["cpu_stats"]["cpu_usage"], seen["cpu_stats"]["throttling_data"]
        if min(used["usage_in_usermode"], used["usage_in_kernelmode"], throttled["throttled_periods"]) > 0:
            break
        assert time.monotonic() < deadline, seen["cpu_stats"]
    assert used["usage_in_usermode"] <= used["total_usage"]
    assert used["usage_in_kernelmode"] <= used["total_usage"]
    assert throttled["periods"] >= throttled["throttled_periods"]
    assert throttled["throttled_time"] > 0
    value(behave, "POST", f"{ONE}/update", {"NanoCpus": 10**9})
    gateway = behave.ok("exec", "behave", "sh", "-c", "ip route | sed -n 's/default via //;s/ .*//p' | head -1")
    behave.ok("exec", "behave", "ping", "-c", "3", "-W", "10", gateway)
    carried = value(behave, "GET", f"{ONE}/stats", stream="0", **{"one-shot": "1"})["networks"]
    assert carried.keys() == {"eth0"}
    assert carried["eth0"]["rx_packets"] >= 3
    assert carried["eth0"]["tx_packets"] >= 3
    assert carried["eth0"]["tx_bytes"] >= 3 * 98
