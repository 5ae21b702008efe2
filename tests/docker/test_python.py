"""docker-py, as test suites and tools use it, and raw requests for what no tool asks."""

from __future__ import annotations

import io
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import IMAGE, Tool
from tests.image.conftest import debian_registry

import docker as sdk  # type: ignore[import-untyped]

HTPASSWD = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"  # secret
pytestmark = pytest.mark.needs("root", "docker")


@pytest.fixture
def client(docker: Tool) -> Iterator[Any]:
    """A docker-py client of either engine."""
    made = sdk.DockerClient(base_url=docker.address, version="auto", timeout=30)
    yield made
    made.close()


def test_containers(client: Any) -> None:
    """Run, list, exec, logs, archive, stats, wait and remove, through the library."""
    assert client.containers.run(IMAGE, "echo hello", remove=True, network_mode="none") == b"hello\n"
    with pytest.raises(sdk.errors.ContainerError) as caught:
        client.containers.run(IMAGE, "sh -c 'exit 3'", remove=True, network_mode="none")
    assert caught.value.exit_status == 3
    made = client.containers.run(IMAGE, "sleep 60", detach=True, name="py", network_mode="none", labels={"by": "py"})
    assert [each.name for each in client.containers.list(filters={"label": "by=py"})] == ["py"]
    code, output = made.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    assert (code, output) == (4, (b"out\n", b"err\n"))
    assert next(made.exec_run("cat /etc/passwd", stream=True).output).startswith(b"root:")
    made.put_archive("/tmp", tar_of("f", b"content"))
    chunks, stat = made.get_archive("/tmp/f")
    assert stat["name"] == "f"
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        assert tar.extractfile("f").read() == b"content"  # type: ignore[union-attr]
    sample = made.stats(stream=False)
    assert sample["cpu_stats"]["system_cpu_usage"] > sample["precpu_stats"]["system_cpu_usage"] > 0
    made.stop(timeout=1)
    assert made.wait()["StatusCode"] in (137, 143)
    made.remove()
    with pytest.raises(sdk.errors.NotFound):
        client.containers.get("py")


def test_input_right_behind_the_head_is_not_lost(trivet: Tool) -> None:
    """Bytes sent in the same segment as the attach request reach the program, and half-close ends its input.

    dockerd loses them (seen with 20.10).
    """
    api = sdk.APIClient(base_url=trivet.address, version="auto", timeout=30)
    key = api.create_container(IMAGE, "cat", stdin_open=True, host_config=api.create_host_config(network_mode="none"))[
        "Id"
    ]
    api.start(key)
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(20)
        link.connect(trivet.socket)
        head = f"POST /containers/{key}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: d\r\n"
        link.sendall(head.encode() + b"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\nearly\n")
        link.sendall(b"late\n")
        link.shutdown(socket.SHUT_WR)
        answer = b""
        while data := link.recv(4096):
            answer += data
    status, _, stream = answer.partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 101 ")
    assert b"".join(frames(stream)) == b"early\nlate\n"
    api.remove_container(key, force=True)
    api.close()


def frames(stream: bytes) -> Iterator[bytes]:
    """Take multiplexed output apart; all of it must be stdout."""
    while stream:
        assert stream[:4] == b"\1\0\0\0"
        length = int.from_bytes(stream[4:8], "big")
        yield stream[8 : 8 + length]
        stream = stream[8 + length :]


def tar_of(name: str, content: bytes) -> bytes:
    """A tar of one file."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return output.getvalue()


@pytest.mark.needs("docker-registry")
def test_credentials_of_a_request(docker: Tool, client: Any, tmp_path: Path) -> None:
    """X-Registry-Auth counts for the request it comes with, and for no later one."""
    right, wrong = ({"username": "user", "password": word} for word in ("secret", "guess"))
    with docker.inside(), debian_registry(tmp_path / "served", htpasswd=HTPASSWD) as address:
        name = f"{address}/a/b"
        client.images.get(IMAGE).tag(name, "1")
        for account in (wrong, right):
            lines = client.images.push(name, "1", auth_config=account, stream=True, decode=True)
            assert any("error" in line for line in lines) == (account is wrong)
        client.images.remove(f"{name}:1")
        assert f"{name}:1" in client.images.pull(name, "1", auth_config=right).tags
        assert client.images.get_registry_data(f"{name}:1", auth_config=right).has_platform("linux/amd64")
        client.images.remove(f"{name}:1")
        with pytest.raises(sdk.errors.APIError):
            client.images.pull(name, "1")
        with pytest.raises(sdk.errors.APIError):
            client.images.get_registry_data(f"{name}:1", auth_config=wrong)
