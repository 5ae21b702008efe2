"""`docker build` and `docker buildx` of today, unchanged: BuildKit's own protocol, without BuildKit."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import secrets
import signal
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from tests.build.test_caller import ASK
from tests.build.test_caller import agent as agent
from tests.build.test_elsewhere import Quiet
from tests.docker.conftest import IMAGE
from tests.docker.newest import Newest
from tests.docker.newest import newest as newest
from tests.docker.test_python import tar_of
from tests.docker.test_session import running, until
from tests.image.conftest import debian_registry

pytestmark = pytest.mark.needs("root", "docker")


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Serve a directory on loopback."""
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A context with a Dockerfile of a few steps."""
    (tmp_path / "c").mkdir()
    write(tmp_path / "c", "COPY a /a\nRUN cat /a; echo said", a="file a\n")
    return tmp_path / "c"


def write(place: Path, steps: str, **files: str) -> None:
    """Write a Dockerfile, and what it copies."""
    (place / "Dockerfile").write_text(f"FROM {IMAGE}\n{steps}\n")
    for name, content in files.items():
        (place / name).write_text(content)


def test_build(newest: Newest, place: Path) -> None:
    """`docker build` goes by buildx: progress, cache, names, the id on standard output and in files."""
    said = newest.said("build", "--progress", "plain", "-t", "bx:1", "-t", "bx:2", place)
    assert 'building with "default" instance using docker driver' in said
    assert re.search(r"#\d+ [\d.]+ file a\n#\d+ [\d.]+ said\n", said)
    assert "naming to bx:1 done" in said
    again = newest.said(
        "build", "--progress", "plain", "--iidfile", place / "id", "--metadata-file", place / "m", place
    )
    assert again.count("CACHED") == 2
    key = newest.ok("inspect", "-f", "{{.Id}}", "bx:2")
    assert (place / "id").read_text() == key == newest.ok("build", "-q", place)
    assert json.loads((place / "m").read_text())["containerimage.config.digest"] == key
    assert newest.ok("run", "--rm", "--network", "none", "bx:1", "cat", "/a") == "file a"
    newest.ok("rmi", "bx:1", "bx:2")


def test_what_is_asked_for(newest: Newest, place: Path) -> None:
    """Arguments, labels, targets, platforms, hosts, limits, networks, and which steps are made afresh."""
    stages = (
        "ARG A=none\nRUN echo A=$A; cat /etc/hosts; ulimit -n; df /dev/shm; ls /sys/class/net\nFROM scratch\nCOPY a /"
    )
    (place / "Dockerfile").write_text(f"FROM {IMAGE} AS first\n{stages}\n")
    options = ["--target", "first", "--build-arg", "A=given", "--label", "l=m,n", "--platform", "linux/amd64"]
    limits = ["--ulimit", "nofile=100:200", "--shm-size", "48m", "--network", "none"]
    hosts = ["--add-host", "one:1.2.3.4", "--add-host", "us:host-gateway"]
    said = newest.said("build", "--progress", "plain", "-t", "bxo", *options, *limits, "--no-cache", place)
    assert re.search(r" A=given\n#\d+ [\d.]+ 127.*#\d+ [\d.]+ 100\n.* 49152 .*#\d+ [\d.]+ lo\n", said, re.DOTALL)
    assert newest.ok("inspect", "-f", "{{json .Config.Labels}}", "bxo") == '{"l":"m,n"}'
    said = newest.said("build", "--progress", "plain", *options, *hosts, "--no-cache-filter", "first", place)
    assert re.search(r" 1.2.3.4\tone\n", said)
    assert re.search(r" [\d.]+\tus\n", said)
    newest.ok("rmi", "bxo")


@pytest.mark.needs("ssh-agent", "musl-gcc")
def test_secret_and_agent(newest: Newest, place: Path, agent: Path) -> None:
    """Secrets and agents are asked of buildx when a step wants them."""
    write(place, "RUN --mount=type=secret,id=word wc -c < /run/secrets/word", ask=ASK, word="hush")
    said = newest.said("build", "--progress", "plain", "--no-cache", "--secret", f"id=word,src={place / 'word'}", place)
    assert re.search(r"#\d+ [\d.]+ 4\n", said)
    subprocess.run(["musl-gcc", "-static", "-x", "c", "-o", place / "ask.bin", place / "ask"], check=True)
    write(place, "COPY ask.bin /bin/ask\nRUN --mount=type=ssh ask")
    line = newest.command("build", "--progress", "plain", "--no-cache", "--ssh", f"default={agent}", place)
    done = subprocess.run(line, env=newest.env, capture_output=True, timeout=90, check=False)
    assert b"keys 1 type 12" in done.stderr, done.stderr


def test_where_the_context_is(newest: Newest, place: Path) -> None:
    """A tar or a Dockerfile on standard input, a Dockerfile elsewhere, further contexts: directories and images."""
    tar = tar_of("Dockerfile", f"FROM {IMAGE}\nCOPY Dockerfile /\nRUN echo by tar".encode())
    assert "by tar" in newest.said("build", "--progress", "plain", "--no-cache", "-", input=tar)
    assert "by input" in newest.said(
        "build", "--progress", "plain", "--no-cache", "-", input=f"FROM {IMAGE}\nRUN echo by input".encode()
    )
    (place.parent / "other").mkdir()
    (place.parent / "other/f").write_text("of another")
    dockerfile = place.parent / "Dockerfile.x"
    dockerfile.write_text("FROM base\nCOPY --from=other f /f\nCOPY a /a\nRUN cat /f")
    contexts = ["--build-context", f"other={place.parent / 'other'}", "--build-context", f"base=docker-image://{IMAGE}"]
    assert "of another" in newest.said("build", "--progress", "plain", "-f", dockerfile, *contexts, place)
    (place.parent / "served").mkdir()
    (place.parent / "served/x.tar").write_bytes(tar)
    with serving(place.parent / "served") as address:
        assert "by tar" in newest.said("build", "--progress", "plain", "--no-cache", f"{address}/x.tar")
        line = ["build", "--progress", "plain", "-f", "-", f"{address}/x.tar"]
        assert "mine" in newest.said(*line, input=f"FROM {IMAGE}\nRUN echo mine".encode())
    done = newest.run("build", "-f", place / "nothing", place)
    assert b"nothing is not in the directory" in done.stderr


def test_outputs(newest: Newest, place: Path) -> None:
    """Files, archives, several at once, or nothing but the cache."""
    write(place, "FROM scratch\nCOPY a /d/a", a="x")
    out, oci = place.parent / "out", place.parent / "oci.tar"
    newest.said("build", "-o", out, "-o", f"type=oci,dest={oci}", "-o", "type=image,name=bxm:1", place)
    assert (out / "d/a").read_text() == "x"
    with tarfile.open(oci) as archive:
        assert {"oci-layout", "index.json"} <= set(archive.getnames())
    assert newest.ok("inspect", "-f", "{{.Id}}", "bxm:1")
    with tarfile.open(fileobj=BytesIO(newest.run("build", "-o", "-", place).stdout)) as archive:
        assert "d/a" in [name.removeprefix("./") for name in archive.getnames()]
    archived = place.parent / "docker.tar"
    newest.said("build", "-o", f"type=docker,dest={archived}", "-t", "bxm:2", place)
    newest.ok("load", "-i", archived)
    newest.ok("rmi", "bxm:1", "bxm:2")
    assert newest.ok("build", "-q", "-o", "type=cacheonly", place) == ""
    assert "only archives are written" in newest.fails("build", "-o", f"type=oci,tar=false,dest={out}", place)


def test_failure(newest: Newest, place: Path) -> None:
    """What fails is told with its line; so are doubtful lines, and what this builder is not."""
    write(place, "RUN echo before; exit 7")
    done = newest.run("build", "--progress", "plain", place)
    assert done.returncode == 1
    assert (
        b"ERROR: failed to build: failed to solve: Dockerfile:2: RUN echo before; exit 7 ended with exit" in done.stderr
    )
    assert re.search(rb"#\d+ [\d.]+ before\n", done.stderr)
    write(place, "RUNN x")
    assert "failed to solve: Dockerfile:2: unknown instruction RUNN" in newest.fails("build", place)
    other = ["--cache-to", "type=azblob,account_url=http://127.0.0.1:9,name=x"]
    assert "cannot be exported to azblob" in newest.fails("build", *other, place)
    assert "is not served here" in newest.fails("buildx", "history", "ls")


def test_call(newest: Newest, place: Path) -> None:
    """--check, and --call outline and targets, tell of a Dockerfile; warnings come with a build, too."""
    (place / "Dockerfile").write_text(
        f"FROM {IMAGE} as one\n# WORD what is said\nARG WORD=hi\n# The second\nFROM one AS two\n"
        "RUN --mount=type=secret,id=s,required=true true\nRUN --mount=type=cache,target=/k --mount=type=ssh true\n"
    )
    done = newest.run("build", "--check", place)
    assert done.returncode == 1
    assert b"WARNING: FromAsCasing" in done.stdout
    assert re.search(rb"Dockerfile:1\n-+\n   1 \| >>> FROM \S+ as one", done.stdout)
    outline = newest.ok("build", "--call", "outline", place)
    assert re.search(r"TARGET: +two\nDESCRIPTION: +The second", outline)
    assert re.search(r"WORD +hi +what is said", outline)
    assert re.search(r"\ns +true", outline)
    assert json.loads(newest.ok("build", "--call", "targets,format=json", place))["targets"][1]["default"]
    said = newest.said("build", "--progress", "plain", "--target", "one", place)
    assert "1 warning found" in said
    assert "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)" in said
    write(place, "RUN true")
    assert "no warnings found" in newest.ok("build", "--check", place)


@pytest.mark.needs("docker-registry")
def test_registry(newest: Newest, place: Path) -> None:
    """Push, and a cache that goes to a registry and comes from there."""
    with debian_registry(place.parent / "served") as address:
        name = f"{address}/bx/image:1"
        cache = f"type=registry,ref={address}/bx/cache:1"
        said = newest.said("build", "--push", "--cache-to", f"{cache},mode=max", "-t", name, place)
        assert f"naming to {name} done" in said
        newest.ok("rmi", name)
        newest.ok("pull", name)
        newest.ok("rmi", name)
        newest.ok("buildx", "prune", "-af")
        assert newest.said("build", "--progress", "plain", "--cache-from", cache, place).count("CACHED") == 2
        newest.said("build", "--push", "--cache-to", "type=inline", "-t", name, place)
        newest.ok("buildx", "prune", "-af")
        newest.ok("rmi", name)
        assert "CACHED" in newest.said("build", "--progress", "plain", "--cache-from", name, place)


def test_directories(newest: Newest, place: Path) -> None:
    """A cache goes into a directory of the client's and comes from there; an OCI layout can be a context."""
    cache = place.parent / "cache"
    newest.said("build", "--cache-to", f"type=local,dest={cache},mode=max", "-t", "bxd", place)
    assert json.loads((cache / "index.json").read_text())["manifests"][0]["digest"].startswith("sha256:")
    newest.said("build", "--cache-to", f"type=local,dest={cache}", place)  # what is there already is no mistake
    newest.ok("rmi", "bxd")
    newest.ok("buildx", "prune", "-af")
    assert (
        newest.said("build", "--progress", "plain", "--cache-from", f"type=local,src={cache}", place).count("CACHED")
        == 2
    )
    image = place.parent / "oci"
    image.mkdir()
    newest.said("build", "-o", f"type=oci,dest={image}.tar", place)
    with tarfile.open(f"{image}.tar") as archive:
        archive.extractall(image)
    write(place, "COPY --from=there /a /b\nRUN cat /b")
    again = newest.said("build", "--progress", "plain", "--build-context", f"there=oci-layout://{image}", place)
    assert re.search(r"#\d+ [\d.]+ file a\n", again)
    for blob in (image / "blobs/sha256").iterdir():
        if blob.stat().st_size > 1 << 18:
            blob.unlink()
    context = f"there=oci-layout://{image}"
    assert "not found" in newest.fails("build", "--no-cache", "--build-context", context, place)


def test_builder(newest: Newest, place: Path) -> None:
    """`buildx ls`, `inspect`, `du` and `prune` tell of the one builder, and of its cache."""
    assert re.search(r"default +\\?_? *default +running +v[\d.]+ +linux/", newest.ok("buildx", "ls").replace("\\_", ""))
    told = newest.ok("buildx", "inspect")
    assert re.search(r"host-gateway-ip: +\d+\.\d+", told)
    newest.said("build", "--no-cache", place)
    assert re.search(r"Total:\s+[\d.]+k?B", newest.ok("buildx", "du"))
    assert len(newest.ok("builder", "prune", "-af").splitlines()) >= 4
    assert newest.ok("buildx", "prune", "-af") == "Total:\t0B"


def test_bake(newest: Newest, place: Path) -> None:
    """Several targets at once, by one session; one may begin with what another one makes."""
    (place / "second").write_text("FROM first\nRUN cat /a; echo second")
    (place / "docker-bake.json").write_text(
        json.dumps(
            {
                "target": {
                    "default": {"dockerfile": "second", "contexts": {"first": "target:one"}, "tags": ["bxb:2"]},
                    "one": {"tags": ["bxb:1"]},
                }
            }
        )
    )
    line = newest.command("buildx", "bake", "--progress", "plain", "default", "one")
    done = subprocess.run(line, cwd=place, env=newest.env, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b" second\n" in done.stderr
    assert newest.ok("run", "--rm", "--network", "none", "bxb:2", "cat", "/a") == "file a"
    newest.ok("rmi", "bxb:1", "bxb:2")


def test_graph(newest: Newest, place: Path) -> None:
    """A graph of operations that isn't of this builder's making is refused."""
    line = newest.command("buildx", "bake", "http://127.0.0.1:9/docker-bake.hcl")
    done = subprocess.run(line, cwd=place, env=newest.env, capture_output=True, timeout=60, check=False)
    assert b"graphs of operations are not solved here" in done.stderr


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_goes_ends_its_build(newest: Newest, place: Path, kill: signal.Signals) -> None:
    """Interrupted or killed, buildx leaves no step running."""
    mark = f"7{secrets.randbelow(10**6):06}"
    write(place, f"RUN sleep {mark}")
    line = newest.command("build", place)
    with subprocess.Popen(line, env=newest.env, stderr=subprocess.PIPE, start_new_session=True) as process:
        until(lambda: running(mark))
        os.killpg(process.pid, kill)
        assert process.wait(20) != 0
    until(lambda: not running(mark))
