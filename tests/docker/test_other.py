"""What a container has of others: links, shared memory and processes, volumes; and what is said when it can't."""

from __future__ import annotations

from typing import Any

import pytest
from tests.docker.conftest import IMAGE, Tool
from tests.docker.request import ask, value

pytestmark = pytest.mark.needs("root", "docker")


def refused(tool: Tool, status: int, **host: Any) -> str:
    """Create a container, which must fail; what is said."""
    said: str = value(tool, "POST", "/containers/create", {"Image": IMAGE, "HostConfig": host}, status)["message"]
    return said


def begun(tool: Tool, status: int, name: str, **host: Any) -> str:
    """Create a container and start it, which must fail; what is said."""
    value(tool, "POST", "/containers/create", {"Image": IMAGE, "HostConfig": host}, 201, name=name)
    said: str = value(tool, "POST", f"/containers/{name}/start", None, status)["message"]
    tool.ok("rm", "-f", name)
    return said


def test_refusals(docker: Tool) -> None:
    """What is shared with a container that isn't there, or shared wrongly, is refused in Docker's words."""
    assert refused(docker, 400, Links=["nosuch:x"]) == "could not get container for nosuch: No such container: nosuch"
    assert "bad format for links: a:b:c" in refused(docker, 400 if docker.name == "trivet" else 500, Links=["a:b:c"])
    undefined = "with links. This would result in undefined behavior"
    key = docker.ok("create", "--name", "other", "--network", "none", IMAGE, "sleep", "600")
    said = refused(docker, 400, Links=["other:x"], NetworkMode="host")
    assert said == f"conflicting options: host type networking can't be used {undefined}"
    said = refused(docker, 400, Links=["other:x"], NetworkMode="container:other")
    assert said == f"conflicting options: container type network can't be used {undefined}"
    for kind in ("PidMode", "IpcMode"):
        assert refused(docker, 400, NetworkMode="none", **{kind: "container:nosuch"}) == "No such container: nosuch"
    assert refused(docker, 400, VolumesFrom=["nosuch"]) == "No such container: nosuch"
    for mode in ("bad", "ro:rw", "ro,rw"):
        assert refused(docker, 400, VolumesFrom=[f"other:{mode}"]) == f"invalid mode: {mode}"
    assert refused(docker, 400, VolumesFrom=[""]) == "volumes-from specification cannot be an empty string"
    said = begun(docker, 500, "pid-c", NetworkMode="none", PidMode="container:other")
    assert said == f"container {key} is not running"
    said = begun(docker, 500, "ipc-c", NetworkMode="none", IpcMode="container:other")
    assert said == f"can't join IPC of container {key}: container {key} is not running"
    docker.ok("start", "other")
    said = begun(docker, 500, "ipc-c", NetworkMode="none", IpcMode="container:other")
    hint = "non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
    assert said == f"can't join IPC of container {key}: {hint}"
    docker.ok("rm", "-f", "other")


def test_modes(trivet: Tool) -> None:
    """How namespaces are chosen is checked."""
    for field, word in (("IpcMode", "IPC"), ("PidMode", "PID"), ("UTSMode", "UTS"), ("UsernsMode", "user namespace")):
        assert refused(trivet, 400, **{field: "nonsense"}) == f"invalid {word} mode: nonsense"


def test_shared_memory(docker: Tool) -> None:
    """--ipc shareable, container:NAME and none; inspect shows them."""
    docker.ok("run", "-d", "--name", "memory", "--ipc", "shareable", "--network", "none", IMAGE, "sleep", "600")
    docker.ok("exec", "memory", "sh", "-c", "echo seen >/dev/shm/file")
    joined = ["--ipc", "container:memory", "--network", "none"]
    assert docker.ok("run", "--rm", *joined, IMAGE, "cat", "/dev/shm/file") == "seen"
    assert docker.ok("inspect", "-f", "{{.HostConfig.IpcMode}}", "memory") == "shareable"
    assert docker.run("run", "--rm", "--ipc", "none", "--network", "none", IMAGE, "ls", "/dev/shm").returncode == 1
    docker.ok("rm", "-f", "memory")


def test_volumes_from(docker: Tool) -> None:
    """Another's volumes come along, read-only where it or the mode says so; what is one's own stays."""
    docker.ok(
        "create", "--name", "store", "-v", "store-a:/a", "-v", "store-b:/b:ro", "-v", "/c", "--network", "none", IMAGE
    )
    script = "for d in a b c; do touch /$d/x 2>/dev/null && echo $d; done; true"
    run = ["run", "--rm", "--network", "none"]
    assert docker.ok(*run, "--volumes-from", "store", IMAGE, "sh", "-c", script).split() == ["a", "c"]
    assert docker.ok(*run, "--volumes-from", "store:ro", IMAGE, "sh", "-c", script).split() == []
    own = ["-v", "store-own:/a"]
    assert docker.ok(*run, *own, "--volumes-from", "store:rw,z", IMAGE, "ls", "/a", "/c").split() == ["/a:", "/c:", "x"]
    docker.ok("rm", "-v", "store")
    docker.ok("volume", "rm", "store-a", "store-b", "store-own")


def test_links(trivet: Tool) -> None:
    """Links have Docker's variables and names, are shown, taken away, and hold to what runs."""
    trivet.ok("run", "-d", "--name", "linked", "--expose", "80", "-e", "A=b", IMAGE, "httpd", "-f")
    trivet.ok("run", "-d", "--name", "linking", "--link", "linked:the-db", IMAGE, "sleep", "600")
    told = trivet.ok("exec", "linking", "cat", "/proc/1/environ")
    assert "THE_DB_ENV_A=b" in told
    assert "THE_DB_NAME=/linking/the-db" in told
    assert "404" in trivet.run("exec", "linking", "wget", "-qO-", "http://the-db/").stderr.decode()
    assert trivet.ok("inspect", "-f", "{{.HostConfig.Links}}", "linking") == "[/linked:/linking/the-db]"
    assert "80/tcp" in trivet.ok("ps", "--filter", "name=^linked$", "--format", "{{.Ports}}")
    assert value(trivet, "GET", "/containers/linked/json")["NetworkSettings"]["Ports"] == {"80/tcp": None}
    ask(trivet, "DELETE", "/containers/linking/the-db", None, 404, link="0")
    trivet.ok("rm", "--link", "linking/the-db")
    assert value(trivet, "DELETE", "/containers/linking/the-db", None, 404, link="1")["message"]
    assert "bad address" in trivet.run("exec", "linking", "wget", "-qO-", "http://the-db/").stderr.decode()
    assert "default link name" in value(trivet, "DELETE", "/containers/linking", None, 409, link="1")["message"]
    trivet.ok("rm", "-f", "linked", "linking")


def test_links_on_a_network(trivet: Tool) -> None:
    """On a network of one's own a link is a name, also for what is connected later."""
    trivet.ok("network", "create", "link-net")
    trivet.ok("run", "-d", "--name", "linked", "--network", "link-net", IMAGE, "httpd", "-f")
    trivet.ok("run", "-d", "--name", "linking", IMAGE, "sleep", "600")
    trivet.ok("network", "connect", "--link", "linked:db", "link-net", "linking")
    assert "404" in trivet.run("exec", "linking", "wget", "-qO-", "http://db/").stderr.decode()
    shown = value(trivet, "GET", "/containers/linking/json")["NetworkSettings"]["Networks"]
    assert shown["link-net"]["Links"] == ["linked:db"]
    trivet.ok("kill", "linked")
    trivet.ok("wait", "linked")
    trivet.ok("create", "--name", "linking2", "--network", "link-net", "--link", "linked:db", IMAGE, "true")
    said = value(trivet, "POST", "/containers/linking2/start", None, 500)["message"]
    assert said == "Cannot link to a non running container: /linked AS /linking2/db"
    trivet.ok("rm", "-f", "linked", "linking", "linking2")
    trivet.ok("network", "rm", "link-net")
