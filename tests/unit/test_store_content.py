"""The content store: blobs appear whole or not at all, and go when nothing needs them."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivet.base.error import Corrupt, TrivetError, Unavailable
from trivet.oci import digest as digests
from trivet.store import collect
from trivet.store.collect import Root
from trivet.store.content import AmbiguousDigest, BlobNotFound, ContentStore, SizeMismatch, StoreFull
from trivet.store.lease import Leases
from trivet.store.record import Records


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    """An empty store."""
    return ContentStore(tmp_path / "content")


@pytest.fixture
def leases(tmp_path: Path) -> Iterator[Leases]:
    """The leases of a record file of one's own."""
    records = Records(tmp_path / "record.db")
    yield Leases(records)
    records.close()


def being_written(content: ContentStore) -> list[str]:
    return [path.name for path in (content.root / "ingest").iterdir()]


def test_a_blob_is_kept_byte_for_byte(content: ContentStore) -> None:
    """What goes in comes out, under the digest of either algorithm, in the layout other tools read."""
    data = os.urandom(3_000_000)
    for algorithm in ("sha256", "sha512"):
        digest = digests.of(data, algorithm)
        with content.ingest(digest, len(data)) as ingest:
            for at in range(0, len(data), 70_000):
                ingest.write(data[at : at + 70_000])
        assert content.path(digest).read_bytes() == data
        assert content.size(digest) == len(data)
        content.verify(digest)
    assert sorted(content.walk()) == sorted((digests.of(data, each), len(data)) for each in ("sha256", "sha512"))
    assert json.loads((content.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert content.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("data", "size", "error"),
    [(b"other", 4, SizeMismatch), (b"dat", 4, SizeMismatch), (b"datA", 4, digests.DigestMismatch)],
)
def test_a_blob_of_other_content_never_appears(content: ContentStore, data: bytes, size: int, error: type) -> None:
    """Content that is too long, too short or different is refused, and nothing is left."""
    digest = digests.of(b"data")
    with pytest.raises(error), content.ingest(digest, size) as ingest:
        ingest.write(data)
    assert not content.exists(digest)
    assert being_written(content) == []


def test_an_interrupted_writer_leaves_nothing(content: ContentStore) -> None:
    """Whatever ends a writer early, the half-written file is gone."""

    def interrupted() -> None:
        with content.ingest() as ingest:
            ingest.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert being_written(content) == []
    assert list(content.walk()) == []


def test_a_killed_writers_rubbish_is_swept(content: ContentStore) -> None:
    """A writer that is killed leaves a file that the next start removes; blobs stay."""
    kept = content.add(b"kept")
    program = (
        "import os,sys; from pathlib import Path; from trivet.store.content import ContentStore\n"
        "with ContentStore(Path(sys.argv[1])).ingest() as ingest: ingest.write(b'x' * 9999); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(content.root)], check=False, timeout=30)
    assert done.returncode == -9
    assert len(being_written(content)) == 1
    content.sweep()
    assert being_written(content) == []
    assert list(content.walk()) == [(kept, 4)]


def test_a_full_disk_is_told_and_leaves_nothing(content: ContentStore) -> None:
    """When a file can't grow, the error is Exhausted, names the file, and the file is gone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with (
            pytest.raises(StoreFull, match=r"cannot write .*/ingest/[0-9a-f]+: ") as caught,
            content.ingest() as ingest,
        ):
            ingest.write(bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.hint
    assert being_written(content) == []


@pytest.mark.needs("root")
def test_a_really_full_file_system(tmp_path: Path) -> None:
    """The same on a tmpfs of one megabyte, mounted where only the test sees it."""
    program = (
        "import sys; from pathlib import Path; from trivet.store.content import ContentStore, StoreFull\n"
        "content = ContentStore(Path(sys.argv[1]))\n"
        "try: content.add(bytes(4 << 20))\n"
        "except StoreFull as error: print(error, list((content.root / 'ingest').iterdir()))"
    )
    script = f'mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}/content'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, program], capture_output=True, text=True, timeout=30, check=True
    )
    assert "no space left on device []" in done.stdout


def test_missing_and_malformed_digests(content: ContentStore) -> None:
    """A digest that isn't here is not found; a text that is no digest is never looked for."""
    with pytest.raises(BlobNotFound):
        content.open(digests.of(b"gone"))
    for text in ("../../etc/passwd", "sha256:../x", ""):
        with pytest.raises(digests.MalformedDigest):
            content.path(text)


def test_a_damaged_blob_is_found(content: ContentStore) -> None:
    """A blob changed on disk fails verification and isn't read as if it were whole."""
    digest = content.add(b"whole")
    content.path(digest).chmod(0o600)
    content.path(digest).write_bytes(b"wrong")
    with pytest.raises(digests.DigestMismatch):
        content.verify(digest)
    with pytest.raises(Corrupt):
        content.read(digest, limit=100)


def image(content: ContentStore, number: int) -> dict[str, str]:
    """Store a small image; tell its parts."""
    layer, config = content.add(b"layer %d" % number), content.add(b"config %d" % number)
    parts = [{"mediaType": "x/y", "digest": each, "size": content.size(each)} for each in (config, layer)]
    manifest = content.add(json.dumps({"schemaVersion": 2, "config": parts[0], "layers": parts[1:]}).encode())
    return {"layer": layer, "config": config, "manifest": manifest}


def test_collection_keeps_what_roots_reach(content: ContentStore) -> None:
    """An image's parts stay with its manifest, through indexes too; everything else goes, and is told before."""
    kept, lost = image(content, 1), image(content, 2)
    entry = {"mediaType": "x/y", "digest": kept["manifest"], "size": content.size(kept["manifest"])}
    index = content.add(json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
    roots = [Root("image app:1", index)]
    planned = collect.collect(content, roots, dry_run=True)
    assert planned.digests == tuple(sorted(lost.values()))
    assert len(list(content.walk())) == 7
    assert collect.collect(content, roots) == planned
    assert {digest for digest, _ in content.walk()} == {*kept.values(), index}
    assert collect.why(content, roots, kept["layer"]) == [kept["layer"], kept["manifest"], index, "image app:1"]
    assert collect.why(content, roots, lost["layer"]) == []


def test_a_lease_protects_until_it_ends(content: ContentStore, leases: Leases) -> None:
    """What a lease holds survives collections that run meanwhile, and not the one after."""
    with leases.hold("pull of app") as lease:
        with content.ingest(lease=lease) as ingest:
            ingest.write(b"data")
        assert collect.collect(content, leased(leases)).digests == ()
        assert collect.why(content, leased(leases), ingest.digest) == [ingest.digest, "pull of app"]
    assert collect.collect(content, leased(leases)).digests == (ingest.digest,)


def test_leases_of_a_dead_engine_are_dropped(leases: Leases) -> None:
    """A lease whose holder died stays recorded until the next engine resets them."""
    manager = leases.hold("killed")
    manager.__enter__().add(digests.of(b"x"))
    assert [each.purpose for each in leases.all()] == ["killed"]
    leases.reset()
    assert leases.all() == []


@pytest.mark.parametrize(
    ("error", "kept"), [(KeyboardInterrupt(), True), (Unavailable("gone"), True), (Corrupt("wrong"), False)]
)
def test_a_lease_of_what_is_tried_again(leases: Leases, error: BaseException, kept: bool) -> None:
    """Who was cut or cancelled finds what he had, all of it and once; who was refused needs nothing of it any more."""

    def pull(digest: str) -> None:
        with leases.hold("pull of x", resumable=True) as lease:
            lease.add(digest)
            raise error

    for digest in ("a", "b"):
        with pytest.raises(type(error)):
            pull(digest)
    assert [set(each.digests) for each in leases.all()] == ([{"a", "b"}] if kept else [])
    with leases.hold("pull of x", resumable=True):
        pass
    assert leases.all() == []


def leased(leases: Leases) -> list[Root]:
    return [Root(each.purpose, digest) for each in leases.all() for digest in each.digests]


def test_nothing_in_use_is_lost_while_collecting(content: ContentStore, leases: Leases) -> None:
    """Writers with leases and a collector that never stops: every writer finds its blob until it lets go."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def collector() -> None:
        while not stop.is_set():
            with leases.records.transaction():
                collect.collect(content, leased(leases))

    def writer(number: int) -> None:
        try:
            for turn in range(15):
                data = b"shared" if turn % 2 else b"%d %d" % (number, turn)
                with leases.hold("writer") as lease:
                    digest = digests.of(data)
                    lease.add(digest)
                    if not content.exists(digest):
                        content.add(data)
                    assert content.read(digest, limit=100) == data
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(4)]
    background = threading.Thread(target=collector)
    for thread in (background, *threads):
        thread.start()
    for thread in threads:
        thread.join(60)
    stop.set()
    background.join(60)
    assert errors == []


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_blob_round_trips(content: ContentStore, data: bytes) -> None:
    """Any bytes are stored, followed as a manifest only if they are one, and collected."""
    digest = content.add(data)
    assert content.read(digest, limit=300) == data
    try:
        assert list(collect.children(content, digest)) == []
    except TrivetError as error:  # pragma: no cover
        pytest.fail(str(error))
    assert digest in collect.collect(content, []).digests


def test_a_blob_is_found_by_the_beginning_of_its_digest(content: ContentStore) -> None:
    """As much of a digest as no other blob shares is enough; less, and what is no digest, is refused."""
    blobs = {content.add(bytes([number])) for number in range(40)}
    for digest in blobs:
        assert (
            content.find(digest) == content.find(digest[:40]) == content.find(digest.removeprefix("sha256:")) == digest
        )
    shared = next(digit for digit in "0123456789abcdef" if sum(each[7] == digit for each in blobs) > 1)
    with pytest.raises(AmbiguousDigest, match="begin with it"):
        content.find(shared)
    for wrong in ("", "xyz", "sha256:", "../x", "sha256:" + "0" * 65):
        with pytest.raises(digests.MalformedDigest):
            content.find(wrong)
    with pytest.raises(BlobNotFound):
        content.find("0" * 64)


def test_adding_what_is_here_mends_what_is_damaged(content: ContentStore) -> None:
    """The same bytes again cost no write, unless what is on the disk isn't what it was."""
    digest = content.add(b"something")
    path = content.path(digest)
    before = path.stat().st_ino
    assert content.add(b"something", digest) == digest
    assert path.stat().st_ino == before
    path.chmod(0o600)
    path.write_bytes(b"somethinG")
    assert content.add(b"something") == digest
    content.verify(digest)


def test_a_cut_pulls_lease_outlives_its_engine(tmp_path: Path) -> None:
    """A resumable lease stays when its engine died: until the same is done, or for a week."""
    records = Records(tmp_path / "record.db")
    leases = Leases(records)
    held = [leases.hold(purpose, resumable=purpose != "build") for purpose in ("pull of a", "pull of b", "build")]
    for each in held:
        each.__enter__().add(digests.of(b"held"))
    leases.reset()
    assert [record.purpose for record in leases.all()] == ["pull of a", "pull of b"]
    with pytest.raises(ValueError, match="cut"), leases.hold("pull of a", resumable=True):
        raise ValueError("cut")
    assert len(leases.all()) == 2
    with leases.hold("pull of a", resumable=True):
        pass
    assert [record.purpose for record in leases.all()] == ["pull of b"]
    old = leases.all()[0]
    records.table("lease", type(old)).update(old.id, msgspec.structs.replace(old, created=old.created - 8 * 86400))
    leases.reset()
    assert leases.all() == []
    records.close()
