"""What inspect and lists show of a container: what was asked for, such that it can be asked for again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import IMAGE, Tool
from tests.docker.request import ask, value

pytestmark = pytest.mark.needs("root", "docker")


def create(tool: Tool, name: str, **host: Any) -> dict[str, Any]:
    """Create a container, and inspect it."""
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none", **host}}
    value(tool, "POST", "/containers/create", body, 201, name=name)
    shown: dict[str, Any] = value(tool, "GET", f"/containers/{name}/json")
    return shown


def test_mounts_can_be_asked_for_again(docker: Tool, tmp_path: Path) -> None:
    """A second container made of what is shown of the first has the same mounts."""
    binds = [f"{tmp_path}:/host:ro,rslave", "shown-v:/plain", "shown-v:/raw:nocopy"]
    options = {"Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs"}}}
    mounts: list[dict[str, Any]] = [
        {"Type": "bind", "Source": str(tmp_path), "Target": "/there", "ReadOnly": True},
        {"Type": "volume", "Source": "shown-w", "Target": "/made", "VolumeOptions": options},
    ]
    first = create(docker, "shown-1", Binds=binds, Mounts=mounts, Tmpfs={"/fast": "size=1m,mode=700"})["HostConfig"]
    assert sorted(text.replace("rslave,ro", "ro,rslave") for text in first["Binds"]) == sorted(binds)
    assert sorted(first["Mounts"], key=lambda each: str(each["Target"])) == sorted(
        mounts, key=lambda each: str(each["Target"])
    )
    fields = ("Binds", "Mounts", "Tmpfs")
    second = create(docker, "shown-2", **{key: first[key] for key in fields})["HostConfig"]
    assert {key: first[key] for key in fields} == {key: second[key] for key in fields}
    docker.ok("rm", "-f", "shown-1", "shown-2")
    docker.ok("volume", "rm", "shown-v", "shown-w")


def test_mounts_of_today(trivet: Tool) -> None:
    """So it is with what dockerd has had since version 26: parts of volumes, images."""
    trivet.ok("run", "--rm", "--network", "none", "-v", "shown-v:/v", IMAGE, "mkdir", "/v/part")
    mounts: list[dict[str, Any]] = [
        {"Type": "volume", "Source": "shown-v", "Target": "/part", "VolumeOptions": {"Subpath": "part"}},
        {"Type": "image", "Source": IMAGE, "Target": "/image", "ImageOptions": {"Subpath": "bin"}},
    ]
    first = create(trivet, "shown-1", Mounts=mounts)["HostConfig"]
    assert (first["Binds"], first["Mounts"]) == (None, mounts)
    trivet.ok("rm", "-f", "shown-1")
    trivet.ok("volume", "rm", "shown-v")


def test_places_on_the_host(docker: Tool) -> None:
    """Where the files with names are, and the layers: what is written inside is found there."""
    create(docker, "shown-1", NetworkMode="bridge")
    docker.ok("start", "shown-1")
    docker.ok("exec", "shown-1", "sh", "-c", "echo written > /mark")
    shown = value(docker, "GET", "/containers/shown-1/json")
    seen = docker.ok("exec", "shown-1", "cat", "/etc/hosts")
    if docker.name == "trivet":  # dockerd's mounts are where its network is
        assert Path(shown["GraphDriver"]["Data"]["MergedDir"], "mark").read_text() == "written\n"
    assert Path(shown["HostsPath"]).read_text().strip() == seen
    assert Path(shown["ResolvConfPath"]).exists()
    assert Path(shown["HostnamePath"]).read_text().strip() == shown["Id"][:12]
    layers = shown["GraphDriver"]["Data"]
    assert Path(layers["UpperDir"], "mark").read_text() == "written\n"
    assert all(Path(each).is_dir() for each in (layers["WorkDir"], *layers["LowerDir"].split(":")))
    docker.ok("rm", "-f", "shown-1")


def test_rows(docker: Tool) -> None:
    """A row names a container by its links, too, and its size is that of image and writable layer."""
    docker.ok("run", "-d", "--name", "shown-1", IMAGE, "sleep", "600")
    docker.ok("run", "-d", "--name", "shown-2", "--link", "shown-1:db", IMAGE, "sh", "-c", "echo >/own; sleep 600")
    rows = value(docker, "GET", "/containers/json", size="1", filters='{"name":["shown-"]}')
    names = {name: row for row in rows for name in row["Names"]}
    assert {"/shown-1", "/shown-2", "/shown-2/db"} <= names.keys()
    assert names["/shown-2/db"]["Id"] == names["/shown-1"]["Id"]
    for row in rows:
        assert row["SizeRootFs"] > 500_000  # busybox
    ask(docker, "DELETE", "/containers/shown-2", None, 204, force="1")
    rows = value(docker, "GET", "/containers/json", filters='{"name":["shown-"]}')
    assert [row["Names"] for row in rows] == [["/shown-1"]]
    docker.ok("rm", "-f", "shown-1")
