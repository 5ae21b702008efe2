"""Other people's clients at our registry, unchanged: docker, podman, skopeo."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.build.test_docker import Docker
from tests.image.conftest import small_tar
from tests.image.containerd import containerd
from tests.image.served import trivet_registry
from tests.image.test_platforms import make
from tests.image.test_registry import raw_manifest

from trivet.engine.image.commit import scratch
from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageRecord
from trivet.engine.image.source_registry import More
from trivet.oci import platform as platforms
from trivet.oci.config import History
from trivet.oci.descriptor import OCI_LAYER, OCI_LAYER_ZSTD
from trivet.oci.layer import Layer


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
    small, many = f"{server}/podman/small:1", f"{server}/podman/many:1"
    (tmp_path / "tar").write_bytes(small_tar(data=bytes(3000)))
    podman("import", str(tmp_path / "tar"), small)  # of what came as gzip it would find that here
    podman("push", "--tls-verify=false", "--compression-format=zstd", small)
    podman("rmi", "-af")
    podman("pull", "--tls-verify=false", small)
    pulled = asyncio.run(images.pull(small))
    assert raw_manifest(small)["layers"][0]["mediaType"] == OCI_LAYER_ZSTD  # type: ignore[index]
    podman("manifest", "create", many)
    podman("manifest", "add", "--tls-verify=false", many, f"docker://{small}")
    podman("manifest", "push", "--all", "--tls-verify=false", many, f"docker://{many}")
    assert asyncio.run(images.pull(many)).id == pulled.id
    assert f"{server}/podman/many" in podman("search", "--tls-verify=false", f"{server}/podman")


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


@pytest.mark.needs("skopeo")
def test_skopeo_copies_all(server: str, images: Images, tmp_path: Path) -> None:
    """skopeo copies an index with all its platforms, synchronises a repository to a directory and back."""
    digest = make(images, f"{server}/all/many:1")
    asyncio.run(images.push(f"{server}/all/many:1", every=True))

    def skopeo(verb: str, *words: str | Path) -> None:
        done = subprocess.run(["skopeo", verb, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    source, plain = f"docker://{server}/all/many:1", ("--src-tls-verify=false", "--dest-tls-verify=false")
    skopeo("copy", "--all", "--preserve-digests", *plain, source, f"docker://{server}/all/copy:1")
    skopeo("copy", "--all", "--format=v2s2", *plain, source, f"docker://{server}/all/docker:1")
    skopeo("sync", "--all", "--src=docker", "--dest=dir", plain[0], f"{server}/all/many", tmp_path)
    skopeo("sync", "--all", "--src=dir", "--dest=docker", plain[1], tmp_path, f"{server}/back")
    for name, same in (("all/copy", True), ("all/docker", False), ("back/many", True)):
        record = asyncio.run(images.pull(f"{server}/{name}:1", more=More(platforms=True)))
        named = next(each for each in record.names if each.reference == f"{server}/{name}:1")
        assert (named.digest == digest) is same


@pytest.mark.needs("docker")
def test_docker_manifest(server: str, images: Images, tmp_path: Path) -> None:
    """The docker command makes an index of two images in the registry, which trivet pulls the right one of."""
    for arch, platform in (("here", str(platforms.host())), ("there", "linux/s390x")):
        draft = scratch(platforms.parse(platform))
        data = small_tar(**{"etc/arch": arch.encode()})
        layer = images.content.add(data)
        made = Layer(digest=layer, size=len(data), media_type=OCI_LAYER, diff_id=layer)
        images.create(draft.with_layer(made, history=History()), [f"{server}/made/app:{arch}"])
        asyncio.run(images.push(f"{server}/made/app:{arch}"))

    def docker(*words: str) -> str:
        environment = {**os.environ, "HOME": str(tmp_path), "DOCKER_CLI_EXPERIMENTAL": "enabled"}
        command = ["docker", "manifest", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    name = f"{server}/made/app"
    docker("create", "--insecure", f"{name}:all", f"{name}:here", f"{name}:there")
    docker("annotate", f"{name}:all", f"{name}:there", "--os", "linux", "--arch", "s390x")
    docker("push", "--insecure", f"{name}:all")
    assert len(json.loads(docker("inspect", "--insecure", f"{name}:all"))["manifests"]) == 2
    record = asyncio.run(images.pull(f"{name}:all"))
    assert f"{name}:here" in [each.familiar for each in record.names]


@pytest.mark.needs("root", "containerd", "ctr")
def test_containerd_takes_all(server: str, images: Images, short_path: Path) -> None:
    """containerd's client pulls an index with all platforms and pushes it whole."""
    digest = make(images, f"{server}/ctr/many:1")
    asyncio.run(images.push(f"{server}/ctr/many:1", every=True))
    with containerd(short_path) as ctr:
        common = ["--plain-http"]
        for words in (
            ["pull", *common, "--all-platforms", "--snapshotter=native", f"{server}/ctr/many:1"],
            ["push", *common, f"{server}/ctr/copy:1", f"{server}/ctr/many:1"],
        ):
            done = subprocess.run([*ctr, *words], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
    record = asyncio.run(images.pull(f"{server}/ctr/copy:1", more=More(platforms=True)))
    assert digest in [each.digest for each in record.names]
