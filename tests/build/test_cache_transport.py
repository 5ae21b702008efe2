"""`--cache-to` and `--cache-from`: what one engine has built another needn't."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree

import msgspec
import pytest
from tests.build.workshop import base_files, make_tar
from tests.conftest import Daemon
from tests.image.served import trivet_registry

from trivet.base.error import Corrupt
from trivet.build.cache_document import parse
from trivet.oci import digest as digests

pytestmark = pytest.mark.needs("root")

DOCKERFILE = """FROM cache-base AS side
RUN echo side > /side
FROM cache-base
RUN --mount=type=cache,target=/k echo kept > /k/f; echo one > /one
COPY --from=side /side /side
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry of our own."""
    with trivet_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def base(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the image cache-base, the same for both engines."""
    daemon.ok("import", "-", "cache-base", input=make_tar(base_files()))
    archive = tmp_path_factory.mktemp("base") / "base.tar"
    daemon.ok("save", "-o", archive, "cache-base")
    return archive


@pytest.fixture(scope="module")
def other(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A second engine, which has the base image and has never built anything."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(rmtree, run, True)
        engine = Daemon(tmp_path_factory.mktemp("other"), run)
        undo.callback(engine.clean)
        engine.start()
        engine.ok("load", "-i", base)
        yield engine


@pytest.fixture
def context(tmp_path: Path, other: Daemon) -> Path:
    """A context; the other engine has forgotten all it knew."""
    other.ok("builder", "prune", "--force")
    path = tmp_path / "context"
    path.mkdir()
    (path / "Dockerfile").write_text(DOCKERFILE)
    return path


def cached(engine: Daemon, *arguments: str | Path) -> tuple[int, str]:
    """Build; tell how many steps came from a cache, and the image's id."""
    done = engine.trivet("build", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return done.stderr.count(b"CACHED"), done.stdout.decode().strip()


@pytest.mark.parametrize(("mode", "steps"), [("max", 3), ("min", 2)])
def test_registry(daemon: Daemon, other: Daemon, registry: str, context: Path, mode: str, steps: int) -> None:
    """A cache in a registry gives another engine all steps, or those of the target, and the same image."""
    place = f"{registry}/cache:{mode}"
    _, built = cached(daemon, "--cache-to", f"type=registry,ref={place},mode={mode}", context)
    assert cached(other, "--cache-from", place, context) == (steps, built)
    assert cached(other, context) == (3, built)


def test_directory_with_mounts(daemon: Daemon, other: Daemon, context: Path, tmp_path: Path) -> None:
    """A cache in a directory may hold what RUN --mount=type=cache keeps."""
    place = tmp_path / "cache"
    cached(daemon, "--cache-to", f"type=local,dest={place},mode=max,mounts=true", context)
    assert (place / "oci-layout").is_file()
    text = "FROM cache-base\nRUN --mount=type=cache,target=/k cat /k/f; ls -ld /k\n"
    (context / "Dockerfile").write_text(text)
    done = other.trivet("build", "--cache-from", f"type=local,src={place}", context)
    assert b"kept" in done.stderr
    assert b"drwxr-xr-x" in done.stderr


def test_inline(daemon: Daemon, other: Daemon, registry: str, context: Path) -> None:
    """An image may carry its own cache; its id is the same as without."""
    name = f"{registry}/app:1"
    _, plain = cached(daemon, context)
    _, built = cached(daemon, "--cache-to", "type=inline", "--push", "-t", name, context)
    assert built == plain
    assert cached(other, "--cache-from", name, context) == (2, built)


def test_cache_that_is_not_there(daemon: Daemon, registry: str, context: Path, tmp_path: Path) -> None:
    """A cache that can't be had is told and no reason to fail; a place that makes no sense is refused."""
    places = (f"{registry}/none:1", "127.0.0.1:9/x:1", f"type=local,src={tmp_path}")
    done = daemon.trivet("build", *(word for place in places for word in ("--cache-from", place)), context)
    assert done.returncode == 0
    assert done.stderr.count(b"cannot import the build cache") == 3
    assert b"names no place" in daemon.trivet("build", "--cache-to", "type=local", context).stderr
    assert daemon.trivet("build", "--cache-to", "127.0.0.1:9/x:1", context).returncode == 1


def rewritten(place: Path, change: str) -> None:
    """Change an exported cache: its layers become other files, or lie about what they unpack to."""
    index = json.loads((place / "index.json").read_text())

    def blob(digest: str) -> Path:
        return place / "blobs" / digest.replace(":", "/")

    manifest = json.loads(blob(index["manifests"][0]["digest"]).read_bytes())
    document = json.loads(blob(manifest["config"]["digest"]).read_bytes())
    for entry in document["entries"]:
        layer = entry.get("layer")
        if layer and change == "content":
            blob(layer["digest"]).write_bytes(b"something else")
        elif layer:
            layer["diff_id"] = "sha256:" + "0" * 64
    for owner, field in ((manifest, "config"), (index["manifests"], 0)):
        raw = json.dumps(document if field == "config" else manifest).encode()
        digest = digests.of(raw)
        blob(digest).write_bytes(raw)
        owner[field] = {**owner[field], "digest": digest, "size": len(raw)}
    (place / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("change", ["content", "diff_id"])
def test_cache_that_lies(daemon: Daemon, other: Daemon, context: Path, tmp_path: Path, change: str) -> None:
    """A layer that isn't what the cache says is passed over, and the step is done."""
    place = tmp_path / "cache"
    (context / "Dockerfile").write_text(f"FROM cache-base\nRUN echo {change} > /lie\n")
    _, built = cached(daemon, "--cache-to", f"type=local,dest={place},mode=max", context)
    rewritten(place, change)
    done = other.trivet("build", "--cache-from", f"type=local,src={place}", context)
    assert done.returncode == 0, done.stderr
    assert b"passed over" in done.stderr
    assert done.stdout.decode().strip() == built


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'{"entries": [{}]}', b'{"entries": [{"key": 1}]}', b"\xff", b"[" * 9999]
)
def test_documents(raw: bytes) -> None:
    """A document that is none is refused."""
    with pytest.raises(Corrupt, match="malformed"):
        parse(raw, subject="x")


def test_cache_of_somebody_else(daemon: Daemon, context: Path, tmp_path: Path) -> None:
    """An OCI layout that is an image is no cache."""
    place = tmp_path / "layout"
    daemon.ok("save", "--format", "oci", "-o", tmp_path / "a.tar", "cache-base")
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "a.tar").read_bytes())) as archive:
        archive.extractall(place)
    done = daemon.trivet("build", "--cache-from", f"type=local,src={place}", context)
    assert b"holds no build cache" in done.stderr
    assert msgspec.json.decode((place / "oci-layout").read_bytes())
