"""What no tool asks by itself: the other routes and parameters, versions, refusals; and pull, push and levels."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.busybox import busybox_tar
from tests.docker.conftest import IMAGE, Tool
from tests.docker.request import Link, ask, value
from tests.docker.test_python import tar_of
from tests.image.conftest import debian_registry

pytestmark = pytest.mark.needs("root", "docker")


def test_creation_is_checked(trivet: Tool) -> None:
    """Mistakes in a creation have Docker's status and words."""
    asked = [
        ({"Image": "nosuch:1"}, 404, "No such image: nosuch:1"),
        ({"Image": IMAGE, "HostConfig": {"Runtime": "nonsense"}}, 400, "unknown or invalid runtime name: nonsense"),
        ({"Image": IMAGE, "HostConfig": {"RestartPolicy": {"Name": "maybe"}}}, 400, "maybe"),
        ({"Image": IMAGE, "HostConfig": {"Binds": ["a:b:c:d"]}}, 400, "invalid volume specification"),
        ({"Image": IMAGE, "HostConfig": {"NanoCpus": 10**9, "CpuQuota": 5000}}, 400, "Conflicting options"),
    ]
    for body, status, words in asked:
        assert words in value(trivet, "POST", "/containers/create", body, status)["message"]
    assert (
        "Invalid container name"
        in value(trivet, "POST", "/containers/create", {"Image": IMAGE}, 400, name="-")["message"]
    )


def test_waiting(docker: Tool) -> None:
    """Each condition of a wait is answered when it comes true, whose head is sent at once."""
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", "exit 6"], "HostConfig": {"NetworkMode": "none"}}
    key = value(docker, "POST", "/containers/create", body, 201, name="waited", platform="")["Id"]
    found: dict[str, Any] = {}

    def wait(condition: str) -> None:
        found[condition] = value(docker, "POST", f"/containers/{key}/wait", condition=condition)

    threads = [threading.Thread(target=wait, args=[word]) for word in ("next-exit", "removed")]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    ask(docker, "POST", f"/containers/{key}/start", None, 204)
    threads[0].join(20)
    assert found["next-exit"]["StatusCode"] == 6
    assert value(docker, "POST", f"/containers/{key}/wait", condition="not-running")["StatusCode"] == 6
    ask(docker, "POST", f"/containers/{key}/stop", None, 304)
    ask(docker, "DELETE", f"/containers/{key}", None, 204, v="1", force="0", link="0")
    threads[1].join(20)
    assert found["removed"]["StatusCode"] == 6
    ask(docker, "POST", f"/containers/{key}/wait", None, 400, condition="someday") if docker.name == "trivet" else None


def test_lists(trivet: Tool) -> None:
    """Lists with limits, sizes and every kind of filter."""
    for name in ("list-a", "list-b"):
        trivet.ok("create", "--name", name, IMAGE)
    rows = value(trivet, "GET", "/containers/json", all="1", limit="1", size="1")
    assert [row["Names"] for row in rows] == [["/list-b"]]
    assert rows[0]["SizeRw"] >= 0
    both = json.dumps({"since": ["list-a"], "ancestor": [IMAGE], "status": {"created": True}})
    assert [row["Names"] for row in value(trivet, "GET", "/containers/json", filters=both)] == [["/list-b"]]
    assert value(trivet, "GET", "/containers/list-a/json", size="1")["SizeRw"] >= 0
    assert value(trivet, "GET", "/containers/json", None, 400, filters='{"nonsense":["1"]}')["message"]
    assert value(trivet, "POST", "/containers/prune", filters='{"label":["none"]}')["ContainersDeleted"] is None
    trivet.ok("rm", "list-a", "list-b")


def test_what_runs(trivet: Tool) -> None:
    """The parameters of a running container's routes."""
    trivet.ok("run", "-dit", "--name", "runs", "--network", "none", IMAGE)
    one = "/containers/runs"
    ask(trivet, "POST", f"{one}/start", None, 304)
    ask(trivet, "POST", f"{one}/resize", h="30", w="90")
    made = value(trivet, "POST", f"{one}/exec", {"Cmd": ["sh"], "Tty": True, "AttachStdin": True}, 201)["Id"]
    ask(trivet, "POST", f"/exec/{made}/start", {"Detach": True})
    ask(trivet, "POST", f"/exec/{made}/resize", h="30", w="90")
    assert value(trivet, "GET", f"/exec/{made}/json")["Running"] is True
    assert "No such exec instance" in value(trivet, "GET", "/exec/nosuch/json", None, 404)["message"]
    assert value(trivet, "GET", f"{one}/stats", **{"stream": "0", "one-shot": "1"})["pids_stats"]["current"] >= 1
    assert value(trivet, "GET", f"{one}/top", ps_args="-o pid,args")["Titles"] == ["PID", "COMMAND"]
    assert ask(trivet, "HEAD", f"{one}/archive", path="/tmp")[1].headers["X-Docker-Container-Path-Stat"]
    ask(trivet, "PUT", f"{one}/archive", tar_of("f", b"x"), path="/tmp", noOverwriteDirNonDir="1")
    ask(trivet, "PUT", f"{one}/archive", tar_of("f", b"x"), 400, path="/etc/passwd", noOverwriteDirNonDir="1")
    link = Link(trivet.socket)
    wanted = {"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1", "logs": "1", "detachKeys": "ctrl-a,d"}
    link.request("POST", f"{one}/attach?{urlencode(wanted)}")
    assert link.sock is not None
    seen = link.sock.recv(4096)
    link.sock.sendall(b"\x01d")
    while data := link.sock.recv(4096):  # ends: the keys let go
        seen += data
    assert seen.startswith(b"HTTP/1.1 200 OK\r\n")
    link.close()
    ask(trivet, "POST", f"{one}/restart", None, 204, t="0", signal="KILL")
    ask(trivet, "POST", f"{one}/kill", None, 204, signal="HUP")
    ask(trivet, "POST", f"{one}/stop", None, 204, t="1", signal="KILL")
    wanted = {
        "stdout": "1",
        "stderr": "1",
        "tail": "3",
        "since": "1",
        "until": "9999999999",
        "timestamps": "1",
        "follow": "0",
    }
    ask(trivet, "GET", f"{one}/logs", **wanted)
    ask(trivet, "GET", f"{one}/logs", None, 400)
    trivet.ok("rm", "runs")


def test_networks(trivet: Tool) -> None:
    """Networks are made, listed, used, joined and left."""
    body = {"Name": "net-t", "IPAM": {"Config": [{"Subnet": "10.213.7.0/24"}]}, "Labels": {"a": "b"}}
    key = value(trivet, "POST", "/networks/create", body, 201)["Id"]
    assert [net["Id"] for net in value(trivet, "GET", "/networks", filters='{"label":["a=b"]}')] == [key]
    trivet.ok("run", "-d", "--name", "on-net", "--network", "net-t", "-p", "0:80", IMAGE, "sleep", "60")
    assert value(trivet, "GET", "/networks/net-t")["Containers"]
    settings = value(trivet, "GET", "/containers/on-net/json")["NetworkSettings"]
    assert settings["Networks"]["net-t"]["IPAddress"].startswith("10.213.7.")
    assert int(settings["Ports"]["80/tcp"][0]["HostPort"]) > 0
    assert trivet.ok("port", "on-net").startswith("80/tcp -> 0.0.0.0:")
    wish = {"Aliases": ["more"], "IPAMConfig": {"IPv4Address": "10.213.8.9"}}
    value(trivet, "POST", "/networks/create", {"Name": "net-u", "IPAM": {"Config": [{"Subnet": "10.213.8.0/24"}]}}, 201)
    ask(trivet, "POST", "/networks/net-u/connect", {"Container": "on-net", "EndpointConfig": wish})
    more = value(trivet, "GET", "/containers/on-net/json")["NetworkSettings"]["Networks"]["net-u"]
    assert (more["IPAddress"], more["IPPrefixLen"], more["Aliases"]) == ("10.213.8.9", 24, ["more"])
    assert more["IPAMConfig"] == {"IPv4Address": "10.213.8.9"}
    assert more["DNSNames"] == ["on-net", "more", more["DNSNames"][-1]]
    assert "already" in value(trivet, "POST", "/networks/net-u/connect", {"Container": "on-net"}, 409)["message"]
    ask(trivet, "POST", "/networks/net-u/disconnect", {"Container": "on-net"})
    assert value(trivet, "POST", "/networks/net-u/disconnect", {"Container": "on-net"}, 409)["message"]
    value(trivet, "POST", "/networks/net-u/disconnect", {"Container": "on-net", "Force": True}, 409)
    ask(trivet, "DELETE", "/networks/net-u", None, 204)
    trivet.ok("rm", "-f", "on-net")
    assert value(trivet, "POST", "/networks/prune", filters='{"label":["a=b"]}')["NetworksDeleted"] == ["net-t"]
    alone = {"Name": "net-6", "EnableIPv4": False, "EnableIPv6": True}
    value(trivet, "POST", "/networks/create", alone, 201)
    shown = value(trivet, "GET", "/networks/net-6")
    assert (shown["EnableIPv4"], shown["EnableIPv6"]) == (False, True)
    assert [":" in each["Subnet"] for each in shown["IPAM"]["Config"]] == [True]
    trivet.ok("run", "-d", "--name", "on-six", "--network", "net-6", IMAGE, "sleep", "60")
    six = value(trivet, "GET", "/containers/on-six/json")["NetworkSettings"]["Networks"]["net-6"]
    assert (six["IPAddress"], six["Gateway"], six["IPPrefixLen"]) == ("", "", 0)
    assert ":" in six["GlobalIPv6Address"]
    trivet.ok("rm", "-f", "on-six")
    ask(trivet, "DELETE", "/networks/net-6", None, 204)
    neither = {"Name": "net-0", "EnableIPv4": False}
    assert "IPv4" in value(trivet, "POST", "/networks/create", neither, 400)["message"]
    assert "network net-t not found" in value(trivet, "DELETE", "/networks/net-t", None, 404)["message"]


def test_volumes(trivet: Tool) -> None:
    """Volumes are listed by filter and pruned with all."""
    value(trivet, "POST", "/volumes/create", {"Name": "vol-t", "Labels": {"v": "t"}}, 201)
    assert value(trivet, "GET", "/volumes", filters='{"label":["v=t"]}')["Volumes"][0]["Name"] == "vol-t"
    assert value(trivet, "GET", "/volumes/vol-t")["Scope"] == "local"
    wanted = '{"label":["v=t"],"all":["true"]}'
    assert value(trivet, "POST", "/volumes/prune", filters=wanted)["VolumesDeleted"] == ["vol-t"]
    ask(trivet, "DELETE", "/volumes/vol-t", None, 204, force="1")


def test_images_and_builds(trivet: Tool) -> None:
    """The parameters of images, imports, commits and builds."""
    query = {"fromSrc": "-", "repo": "rest", "tag": "1", "message": "m", "changes": 'CMD ["sh"]'}
    ask(trivet, "POST", "/images/create", busybox_tar(), **query)
    assert value(trivet, "GET", "/images/rest:1/json")["Config"]["Cmd"] == ["sh"]
    assert value(trivet, "GET", "/images/rest:1/history")[0]["Tags"] == ["rest:1"]
    ask(trivet, "POST", "/images/rest:1/tag", None, 201, repo="rest", tag="2")
    assert value(trivet, "GET", "/images/json", filters='{"reference":["rest"]}')[0]["RepoTags"] == ["rest:1", "rest:2"]
    assert len(ask(trivet, "GET", "/images/get", names="rest:1")[0]) > 10240
    saved = ask(trivet, "GET", "/images/rest:1/get")[0]
    assert b"Loaded image" in ask(trivet, "POST", "/images/load", saved)[0]
    trivet.ok("create", "--name", "rest", "rest:1")
    query = {
        "container": "rest",
        "repo": "rest",
        "tag": "3",
        "comment": "c",
        "author": "a",
        "changes": "CMD x",
        "pause": "1",
    }
    ask(trivet, "POST", "/commit", {}, 201, **query)
    trivet.ok("rm", "rest")
    query = {
        "t": "rest:4",
        "dockerfile": "D",
        "target": "",
        "buildargs": '{"A":"1"}',
        "labels": '{"b":"2"}',
        "q": "0",
        "networkmode": "none",
        "nocache": "1",
        "pull": "0",
        "platform": "",
        "version": "1",
        "remote": "",
        "extrahosts": "there:192.0.2.1",
        "ulimits": '[{"Name": "nofile", "Soft": 64, "Hard": 64}]',
        "shmsize": "1048576",
        "memory": "67108864",
        "cpushares": "512",
        "cpusetcpus": "0",
        "cachefrom": "[]",
        "rm": "1",
        "forcerm": "1",
        "memswap": "-1",
        "cpuperiod": "0",
        "cpuquota": "0",
        "squash": "0",
        "outputs": "",
    }
    lines = ask(trivet, "POST", "/build", tar_of("D", b"FROM rest:1\nARG A\nRUN echo $A\n"), **query)[0].split(b"\r\n")
    assert {"stream": "Successfully tagged rest:4\n"} in [json.loads(line) for line in lines if line]
    for tag in "1234":
        ask(trivet, "DELETE", f"/images/rest:{tag}", force="1")
    value(trivet, "POST", "/build/prune")
    assert value(trivet, "POST", "/images/prune", filters='{"dangling":["true"]}')["SpaceReclaimed"] >= 0
    assert "LayersSize" in value(trivet, "GET", "/system/df", type="image")


@pytest.mark.needs("docker-registry")
def test_registry(trivet: Tool, tmp_path: Path) -> None:
    """Push to a registry and pull from it, by tag and digest; what it doesn't have, it says in Docker's words."""
    with debian_registry(tmp_path / "served") as address:
        trivet.ok("tag", IMAGE, f"{address}/a/b:1")
        assert "digest: sha256:" in trivet.ok("push", f"{address}/a/b:1")
        trivet.ok("rmi", f"{address}/a/b:1")
        assert "Status: Downloaded newer image" in trivet.ok("pull", "--platform", "linux/amd64", f"{address}/a/b:1")
        assert "Status: Image is up to date" in trivet.ok("pull", f"{address}/a/b:1")
        assert f"manifest for {address}/a/b:2 not found" in trivet.fails("pull", f"{address}/a/b:2")
        trivet.ok("rmi", f"{address}/a/b:1")


def test_login_is_tried(trivet: Tool) -> None:
    """A registry that isn't there can't be logged in to."""
    ask(trivet, "POST", "/auth", {"username": "u", "password": "p", "serveraddress": "127.0.0.1:1"}, 503)


@pytest.mark.parametrize("runtime", ["process", "vm"])
def test_levels(trivet: Tool, runtime: str) -> None:
    """`--runtime` chooses the isolation level; run, exec, logs and stop work as ever."""
    if runtime == "vm" and "trivet.available:yes" not in trivet.ok("info", "-f", '{{index .Runtimes "vm"}}'):
        pytest.skip("level vm is not available here")
    assert trivet.ok("run", "--rm", "--runtime", runtime, IMAGE, "echo", "hello", timeout=120) == "hello"
    assert trivet.ok("run", "--rm", "-l", f"trivet.isolation={runtime}", IMAGE, "true", timeout=120) == ""


@pytest.mark.needs("docker-registry")
def test_distribution(docker: Tool, tmp_path: Path) -> None:
    """What a registry has under a name is told without pulling it."""
    with docker.inside(), debian_registry(tmp_path / "served") as address:
        docker.ok("tag", IMAGE, f"{address}/a/b:1")
        pushed = re.search(r"digest: (sha256:\w+)", docker.ok("push", f"{address}/a/b:1"))
        docker.ok("rmi", f"{address}/a/b:1")
        found = value(docker, "GET", f"/distribution/{address}/a/b:1/json")
        assert pushed
        assert found["Descriptor"]["digest"] == pushed[1]
        assert found["Descriptor"]["size"] > 100
        assert found["Descriptor"]["mediaType"].endswith(("manifest.v2+json", "manifest.v1+json"))
        assert found["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
        unknown = {"message": "manifest unknown: manifest unknown"}
        for name in ("a/b:2", "a/c"):
            assert value(docker, "GET", f"/distribution/{address}/{name}/json", None, 404) == unknown
        assert "invalid reference format" in value(docker, "GET", "/distribution/UPPER/json", None, 400)["message"]
