"""What docker-py's own suite expects of an engine, where ours was found to be another."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.docker.conftest import IMAGE, Tool

import docker as sdk  # type: ignore[import-untyped]

pytestmark = pytest.mark.needs("root", "docker")


@pytest.fixture
def client(docker: Tool) -> Iterator[Any]:
    """A docker-py client of either engine."""
    made = sdk.DockerClient(base_url=docker.address, version="auto", timeout=30)
    yield made
    made.close()


@pytest.mark.parametrize("terminal", [True, False])
def test_headers_of_an_exec(client: Any, terminal: bool) -> None:
    """An exec created with a terminal and started without the word has headers all the same."""
    made = client.containers.run(IMAGE, "sleep 60", detach=True, network_mode="none")
    key = client.api.exec_create(made.id, ["echo", "hello"], tty=terminal)["Id"]
    assert client.api.exec_start(key).rstrip() == b"hello"
    key = client.api.exec_create(made.id, ["echo", "hello"], tty=terminal)["Id"]
    assert client.api.exec_start(key, tty=True).rstrip() == b"hello"
    made.remove(force=True)


def test_an_archive_that_is_none(client: Any) -> None:
    """Loading what holds no images ends in the library's own error."""
    with pytest.raises((sdk.errors.ImageLoadError, sdk.errors.APIError)):
        client.images.load(b"abc")


def test_a_volume_of_an_unknown_driver(client: Any) -> None:
    """It isn't found."""
    with pytest.raises(sdk.errors.NotFound, match="error looking up volume plugin nothing"):
        client.volumes.create("v", driver="nothing")


def test_the_words_of_a_build_that_fails(client: Any) -> None:
    """The classic builder's."""
    dockerfile = io.BytesIO(f"FROM {IMAGE}\nRUN exit 3\n".encode())
    with pytest.raises(sdk.errors.BuildError, match="The command '/bin/sh -c exit 3' returned a non-zero code: 3"):
        client.images.build(fileobj=dockerfile, network_mode="none")


def test_names_of_a_build(client: Any) -> None:
    """--add-host comes as many values of one parameter."""
    dockerfile = io.BytesIO(f"FROM {IMAGE}\nRUN grep there /etc/hosts && grep here /etc/hosts\n".encode())
    hosts = {"there": "192.0.2.1", "here": "192.0.2.2"}
    client.images.build(fileobj=dockerfile, network_mode="none", extra_hosts=hosts, nocache=True)


def test_add_host(docker: Tool) -> None:
    """So it does from the command."""
    dockerfile = f"FROM {IMAGE}\nRUN grep there /etc/hosts\n".encode()
    docker.ok("build", "--network", "none", "--no-cache", "--add-host", "there:192.0.2.1", "-", input=dockerfile)


def test_addresses_of_hardware(docker: Tool, client: Any) -> None:
    """One that is asked for without naming a network is the default network's; it is shown before the start too."""
    made = client.api.create_container(IMAGE, "sleep 60", mac_address="02:42:ac:11:00:0a")["Id"]
    if docker.name == "trivet":  # dockerd does so since 25
        shown = client.api.inspect_container(made)["NetworkSettings"]
        assert shown["Networks"]["bridge"]["MacAddress"] == "02:42:ac:11:00:0a"
    client.api.start(made)
    assert client.api.inspect_container(made)["NetworkSettings"]["MacAddress"] == "02:42:ac:11:00:0a"
    client.api.remove_container(made, force=True)


def test_what_of_a_network_is_shown(docker: Tool, client: Any) -> None:
    """The range addresses are given from; a range of IPv6 without IPv6 is left out; who isn't there can't leave."""
    pools = [
        sdk.types.IPAMPool(subnet="10.215.8.0/24", iprange="10.215.8.128/25", gateway="10.215.8.1"),
        sdk.types.IPAMPool(subnet="fd00:215::/64"),
    ]
    network = client.networks.create("shown", ipam=sdk.types.IPAMConfig(pool_configs=pools))
    network.reload()
    row = {"Subnet": "10.215.8.0/24", "IPRange": "10.215.8.128/25", "Gateway": "10.215.8.1"}
    assert network.attrs["IPAM"]["Config"][0] == row
    if docker.name == "trivet":  # dockerd shows what it doesn't use
        assert network.attrs["IPAM"]["Config"] == [row]
    made = client.containers.run(IMAGE, "sleep 60", detach=True, network_mode="shown")
    network.disconnect(made, force=True)
    assert not client.api.inspect_network(network.id)["Containers"]
    with pytest.raises(sdk.errors.APIError, match="is not connected to"):
        network.disconnect(made, force=True)
    made.remove(force=True)
    network.remove()


def test_a_range_of_host_ports(docker: Tool, client: Any) -> None:
    """The first that is free is taken, and the range is what was asked for."""
    with docker.inside(), socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        number = first.getsockname()[1]
        ports = {"80/tcp": ("127.0.0.1", f"{number}-{number + 5}")}
        api = client.api
        host = api.create_host_config()
        host["PortBindings"] = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ports["80/tcp"][1]}]}
        keys = [api.create_container(IMAGE, "httpd -f", ports=[80], host_config=host)["Id"] for _ in range(2)]
        if docker.name == "trivet":
            first.listen()
        else:  # dockerd fails where a program of the host's has the first
            first.close()
        for key in keys:
            api.start(key)
        shown = [api.inspect_container(key) for key in keys]
    found = [int(each["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]) for each in shown]
    assert found[0] < found[1]
    assert all(number + (docker.name == "trivet") <= each <= number + 5 for each in found)
    assert shown[0]["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"] == f"{number}-{number + 5}"
    for key in keys:
        api.remove_container(key, force=True)
    host["PortBindings"]["80/tcp"][0]["HostPort"] = "9-8"
    with pytest.raises(sdk.errors.APIError, match="invalid port specification"):
        api.create_container(IMAGE, "true", ports=[80], host_config=host)


def test_what_changed(client: Any) -> None:
    """What the program wrote, and none of what was mounted over; memory is shown with its size."""
    made = client.containers.run(
        IMAGE, "sh -c 'echo >/etc/own; echo >/test'", detach=True, network_mode="none", tmpfs={"/fast": "size=3145728"}
    )
    made.wait()
    found = sorted((each for each in made.diff() if each["Path"] != "/fast"), key=lambda each: each["Path"])
    assert found == [{"Path": "/etc", "Kind": 0}, {"Path": "/etc/own", "Kind": 1}, {"Path": "/test", "Kind": 1}]
    made.reload()
    assert made.attrs["HostConfig"]["Tmpfs"] == {"/fast": "size=3145728"}
    made.remove()
