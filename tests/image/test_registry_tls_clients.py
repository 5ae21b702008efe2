"""Other people's clients at our registry as it is out of the box: TLS with its own authority, names, tokens."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import bcrypt
import pytest
from tests.build.test_docker import Docker
from tests.image.conftest import small_tar
from tests.image.containerd import containerd
from tests.image.served import trivet_registry

from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageRecord
from trivet.registry import login as logins
from trivet.registry.auth import Credentials


class Served(NamedTuple):
    """A registry over TLS: its address, and its authority."""

    address: str
    authority: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Our registry with one account, me:secret, that may do everything below team/."""
    place = tmp_path_factory.mktemp("served")
    (place / "users").write_text(f"me:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    rights = 'rights = ["pull", "push", "delete"]'
    (place / "c.toml").write_text(f'[[allow]]\nuser = ["me"]\nrepository = ["team/**"]\n{rights}\n')
    options = ["--htpasswd", str(place / "users"), "--config", str(place / "c.toml")]
    with trivet_registry(place / "root", *options, tls=True) as address:
        yield Served(address, place / "root/tls/ca.crt")


@pytest.fixture
def pushed(server: Served, images: Images, image: ImageRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The name of an image that our own client, logged in, has pushed."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    asyncio.run(logins.login(server.address, Credentials("me", "secret")))
    name = f"{server.address}/team/{tmp_path.name.replace('_', '-').lower()}:1"
    images.tag("test/base:1", name)
    assert asyncio.run(images.push(name)) == image.digest
    return name


def run(*command: str | Path, stdin: str = "", fails: bool = False) -> str:
    """Run a client; return what it printed."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.needs("skopeo")
def test_skopeo(server: Served, pushed: str, image: ImageRecord, tmp_path: Path) -> None:
    """skopeo verifies the authority, gets tokens, reads and writes; and not where it may not."""
    certificates = tmp_path / "certs"
    certificates.mkdir()
    assert "certificate" in run("skopeo", "inspect", "--creds=me:secret", f"docker://{pushed}", fails=True)
    shutil.copy(server.authority, certificates / "ca.crt")
    place = f"--cert-dir={certificates}"
    assert (
        json.loads(run("skopeo", "inspect", place, "--creds=me:secret", f"docker://{pushed}"))["Digest"] == image.digest
    )
    both = [f"--src-cert-dir={certificates}", f"--dest-cert-dir={certificates}"]
    words = ["skopeo", "copy", "--preserve-digests", "--src-creds=me:secret", "--dest-creds=me:secret", *both]
    run(*words, f"docker://{pushed}", f"docker://{server.address}/team/copy:2")
    run(*words, f"docker://{pushed}", f"docker://{server.address}/theirs/copy:2", fails=True)
    run("skopeo", "inspect", place, "--creds=me:wrong", f"docker://{pushed}", fails=True)
    run("skopeo", "inspect", place, "--no-creds", f"docker://{pushed}", fails=True)
    run("skopeo", "delete", place, "--creds=me:secret", f"docker://{server.address}/team/copy:2")


@pytest.mark.needs("root", "podman")
def test_podman(server: Served, pushed: str, image: ImageRecord, tmp_path: Path, short_path: Path) -> None:
    """podman logs in, pulls and pushes."""
    certificates, login = tmp_path / "certs", f"--authfile={tmp_path / 'auth.json'}"
    certificates.mkdir()
    shutil.copy(server.authority, certificates / "ca.crt")
    place: list[str | Path] = [
        "podman",
        "--root",
        tmp_path / "root",
        "--runroot",
        short_path / "run",
        "--storage-driver=vfs",
    ]
    common = [login, f"--cert-dir={certificates}"]
    words = [*common, "-u", "me", "--password-stdin", server.address]
    run(*place, "--events-backend=none", "login", *words, stdin="secret")
    run(*place, "--events-backend=none", "pull", "-q", *common, pushed)
    run(*place, "--events-backend=none", "push", "-q", *common, pushed, f"{server.address}/team/podman:1")
    run(*place, "--events-backend=none", "push", "-q", *common, pushed, f"{server.address}/theirs/x:1", fails=True)


@pytest.mark.needs("root", "docker", "dockerd")
def test_docker(server: Served, pushed: str, tmp_path: Path) -> None:
    """docker logs in, which gets it nothing but a token, pulls and pushes."""
    with ExitStack() as undo:
        directory = Path(tempfile.mkdtemp(prefix="tvt", dir="/tmp"))
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        docker = Docker(directory)
        undo.callback(docker.stop)
        docker.wait()
        docker("login", "-u", "me", "--password-stdin", server.address, input=b"secret")
        docker("pull", pushed)
        docker("tag", pushed, f"{server.address}/team/docker:1")
        docker("push", f"{server.address}/team/docker:1")
        docker("import", "-", f"{server.address}/team/new:1", input=small_tar(data=os.urandom(100_000)))
        docker("push", f"{server.address}/team/new:1")


@pytest.mark.needs("root", "containerd", "ctr")
def test_containerd(server: Served, pushed: str, image: ImageRecord, short_path: Path) -> None:
    """containerd's own client pulls and pushes."""
    with containerd(short_path) as ctr:
        # of a registry on this machine it takes plain http for granted unless hosts.toml says otherwise
        hosts = short_path / "hosts" / server.address
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(
            f'server = "https://{server.address}"\n[host."https://{server.address}"]\nca = "{server.authority}"\n'
        )
        common = ["--user", "me:secret", "--hosts-dir", str(hosts.parent)]
        run(*ctr, "pull", *common, "--snapshotter", "native", pushed)
        assert image.digest in run(*ctr, "list")
        run(*ctr, "push", *common, f"{server.address}/team/ctr:1", pushed)
        run(*ctr, "push", *common, f"{server.address}/theirs/ctr:1", pushed, fails=True)
        run(*ctr, "pull", "--user", "me:secret", pushed, fails=True)
