"""Other people's clients at our registry, unchanged: docker, podman, skopeo."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.build.test_docker import Docker
from tests.image.conftest import small_tar
from tests.image.served import trivet_registry

from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageRecord


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Our registry."""
    with trivet_registry(tmp_path_factory.mktemp("served")) as address:
        yield address


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    """A dockerd of the test's own, if one starts here."""
    with ExitStack() as undo:
        directory = Path(tempfile.mkdtemp(prefix="tvd", dir="/tmp"))
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        docker = Docker(directory)
        undo.callback(docker.stop)
        docker.wait()
        yield docker


@pytest.mark.needs("root", "docker", "dockerd")
def test_docker(server: str, docker: Docker, images: Images) -> None:
    """docker pushes, trivet pulls the same image, pushes it elsewhere, docker pulls that and finds it is the same."""
    first, second = f"{server}/docker/app:1", f"{server}/trivet/app:1"
    docker("import", "-c", 'CMD ["x"]', "-", first, input=small_tar(data=bytes(100_000)))
    key = docker("image", "inspect", "--format", "{{.Id}}", first).stdout.decode().strip()
    docker("push", first)
    record = asyncio.run(images.pull(first))
    assert record.id == key
    images.tag(first, second)
    assert asyncio.run(images.push(second)) == record.digest
    docker("rmi", first)
    docker("pull", second)
    assert docker("image", "inspect", "--format", "{{.Id}}", second).stdout.decode().strip() == key


@pytest.mark.needs("root", "podman")
def test_podman(server: str, images: Images, image: ImageRecord, tmp_path: Path, short_path: Path) -> None:
    """podman pulls what trivet pushed, pushes it on, and the image stays the same."""
    first, second = f"{server}/base:1", f"{server}/podman/base:1"
    images.tag("test/base:1", first)
    asyncio.run(images.push(first))
    place: list[str | Path] = [
        "--root",
        tmp_path / "root",
        "--runroot",
        short_path / "run",
        "--storage-driver=vfs",
        "--events-backend=none",
    ]

    def podman(*words: str) -> str:
        done = subprocess.run(["podman", *place, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    podman("pull", "--tls-verify=false", first)
    assert json.loads(podman("image", "inspect", first))[0]["Id"] == image.id.removeprefix("sha256:")
    podman("push", "--tls-verify=false", first, second)
    assert asyncio.run(images.pull(second)).layers[0].diff_id == image.layers[0].diff_id


@pytest.mark.needs("skopeo")
def test_skopeo(server: str, images: Images, tmp_path: Path) -> None:
    """skopeo lists, copies between repositories with all digests kept, and deletes."""
    record = images.import_(io.BytesIO(small_tar(data=bytes(5000))), f"{server}/sk/app:1")
    asyncio.run(images.push(f"{server}/sk/app:1"))

    def skopeo(verb: str, *words: str) -> str:
        done = subprocess.run(["skopeo", verb, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    there, copy = f"docker://{server}/sk/app", f"docker://{server}/sk/copy:2"
    skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests", f"{there}:1", copy)
    assert json.loads(skopeo("inspect", "--tls-verify=false", copy))["Digest"] == record.digest
    assert json.loads(skopeo("list-tags", "--tls-verify=false", there))["Tags"] == ["1"]
    skopeo("delete", "--tls-verify=false", copy)
    assert subprocess.run(["skopeo", "inspect", "--tls-verify=false", copy], capture_output=True).returncode != 0
