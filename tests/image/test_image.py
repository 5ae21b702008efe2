"""Images: names, archives, imports, what goes and what stays."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from trivet.base.error import Conflict, Corrupt, TrivetError
from trivet.cli.output import short
from trivet.engine.image.change import MalformedChange, apply
from trivet.engine.image.commit import scratch
from trivet.engine.image.image import Images
from trivet.engine.image.load import NotAnArchive
from trivet.engine.image.model import ImageInUse, ImageNotFound, ImageRecord, WrongPlatform
from trivet.engine.image.retention import roots
from trivet.oci import digest as digests
from trivet.oci import platform as platforms
from trivet.oci.config import Config, History
from trivet.oci.reference import MalformedReference
from trivet.store import collect
from trivet.store.collect import Root

MakeImages = Callable[[str], Images]


def layer_tar(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("file")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def imported(images: Images, name: str, content: bytes) -> ImageRecord:
    return images.import_(io.BytesIO(layer_tar(content)), name)


def saved(images: Images, *names: str, form: str = "docker") -> bytes:
    buffer = io.BytesIO()
    images.save(names, buffer, form)
    return buffer.getvalue()


def test_an_image_is_found_by_all_its_names(images: Images, image: ImageRecord) -> None:
    """Name, name without the default domain, digest, id, and any unique beginning of the id."""
    pinned = f"test/base@{image.digest}"
    for ref in ("test/base:1", "docker.io/test/base:1", pinned, image.id, image.id[7:], image.id[7:19], image.id[:12]):
        assert images.find(ref).id == image.id
    assert images.inspect("test/base:1").names == ["test/base:1"]
    assert images.config(image).defaults.env == ("A=b",)


def test_an_image_is_found_by_its_longer_digest(images: Images, image: ImageRecord) -> None:
    """An image whose configuration is named by sha512 is found by that, or by what lists show of it."""
    key = digests.of(images.content.read(image.id, limit=1 << 20), "sha512")
    images.catalog.add(msgspec.structs.replace(image, id=key, names=()), [])
    for ref in (key, short(key)):
        assert images.find(ref).id == key
    assert images.find(short(image.id)).id == image.id


@pytest.mark.parametrize("ref", ["test/base", "test/base:2", "nothing", "0000", "bootstrap:debian/bookworm"])
def test_a_missing_image_says_how_to_get_it(images: Images, image: ImageRecord, ref: str) -> None:
    """The error names the image as it was asked for, and the hint is the command."""
    with pytest.raises(ImageNotFound, match=f"no such image: {ref}") as caught:
        images.find(ref)
    assert caught.value.hint == f"trivet pull {ref}"


def test_a_malformed_name_is_told_from_a_missing_one(images: Images) -> None:
    """What can't be a name is an invalid argument."""
    with pytest.raises(MalformedReference):
        images.find("No:Such:Thing")


def test_ambiguous_ids_are_refused(images: Images) -> None:
    """An abbreviation that several images share is a conflict."""
    for number in range(40):
        imported(images, f"n:{number}", b"%d" % number)
    first: dict[str, list[ImageRecord]] = {}
    for record in images.list():
        first.setdefault(record.id[7], []).append(record)
    digit = next(digit for digit, found in first.items() if len(found) > 1)
    with pytest.raises(Conflict, match=f"image {digit} is ambiguous"):
        images.find(digit)


def test_a_name_moves_to_its_newest_image(images: Images, image: ImageRecord) -> None:
    """Tagging takes the name from the image that had it, which stays without a name until pruned."""
    newer = imported(images, "test/base:1", b"newer")
    assert images.find("test/base:1").id == newer.id
    assert images.find(image.id).names == ()
    images.tag("test/base:1", "other")
    assert [name.familiar for name in images.find("other").names] == ["test/base:1", "other:latest"]
    assert images.prune().deleted == [image.id]
    with pytest.raises(MalformedReference):
        images.tag("other", f"x@{image.digest}")


def test_removing_the_last_name_deletes_the_image(images: Images, image: ImageRecord) -> None:
    """One of two names goes alone; the last one takes the content along, and the sum of what was freed is told."""
    images.tag("test/base:1", "second:1")
    removed = images.remove("second:1")
    assert (removed.untagged, removed.deleted, removed.freed) == (["second:1"], [], 0)
    removed = images.remove("test/base:1")
    assert removed.deleted == [image.id]
    assert removed.freed > image.size
    assert list(images.content.walk()) == []


def test_an_image_in_use_stays(images: Images, image: ImageRecord) -> None:
    """Instances keep their image; with force it loses only its name."""
    images.users = lambda key: ["web-1", "web-2"] if key == image.id else []
    with pytest.raises(ImageInUse, match="cannot remove image test/base:1: used by web-1, web-2"):
        images.remove("test/base:1")
    assert images.remove("test/base:1", force=True).deleted == []
    assert images.find(image.id).names == ()
    assert images.prune(every=True).deleted == []
    assert images.df().active == 1


def test_removing_by_id_wants_force_for_several_names(images: Images, image: ImageRecord) -> None:
    """By id all names go, but not by accident."""
    images.tag("test/base:1", "second:1")
    with pytest.raises(Conflict, match="it has the names test/base:1, second:1"):
        images.remove(image.id)
    assert images.remove(image.id, force=True).untagged == ["test/base:1", "second:1"]


def test_prune_says_before_what_it_does(images: Images, image: ImageRecord) -> None:
    """A dry run names the same images and bytes as the real one, and changes nothing."""
    imported(images, "test/base:1", b"newer")
    garbage = images.content.add(b"garbage")
    planned = images.prune(dry_run=True)
    assert images.content.exists(garbage)
    assert images.prune() == planned
    assert planned.deleted == [image.id]
    assert not images.content.exists(garbage)
    assert images.prune(every=True).untagged == ["test/base:1"]


def test_why_something_is_kept(images: Images, image: ImageRecord) -> None:
    """The chain ends at an image, a lease or another holder."""
    assert images.why(image.layers[0].digest)[-1] == "image test/base:1"
    extra = images.content.add(b"cache")
    assert images.why(extra) == []
    images.holders.append(lambda: [Root("build cache", extra)])
    assert images.why(extra) == [extra, "build cache"]
    images.prune()
    assert images.content.exists(extra)


def test_the_history_has_its_layers(images: Images, image: ImageRecord) -> None:
    """History comes newest first; steps that made a layer have its size."""
    draft = images.draft("test/base:1").changed(Config(user="app"), history=History(created_by="USER app"))
    images.create(draft, ["test/derived"])
    rows = images.history("test/derived")
    assert [(row["created_by"], row["size"] > 0) for row in rows] == [("USER app", False), ("trivet import", True)]


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_archives_keep_digests(images: Images, image: ImageRecord, make_images: MakeImages, form: str) -> None:
    """Saved and loaded elsewhere an image is the same, under all the names asked for."""
    images.tag("test/base:1", "registry.test/deep/name:2")
    data = saved(images, "test/base:1", "registry.test/deep/name:2", form=form)
    other = make_images("other")
    assert other.load(io.BytesIO(data)) == ["test/base:1", "registry.test/deep/name:2"]
    assert other.find("test/base:1").manifest == image.manifest
    assert saved(other, "test/base:1", "registry.test/deep/name:2", form=form) == data
    assert other.load(io.BytesIO(gzip.compress(data))) == ["test/base:1", "registry.test/deep/name:2"]
    assert len(other.list()) == 1


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_other_peoples_archives(
    images: Images, image: ImageRecord, make_images: MakeImages, tmp_path: Path, kind: str
) -> None:
    """What skopeo makes of our archive is read back as the same image; skopeo reads both our forms."""
    for form in ("docker", "oci"):
        ours, theirs = tmp_path / f"{form}.tar", tmp_path / f"{form}-theirs.tar"
        ours.write_bytes(saved(images, "test/base:1", form=form))
        source = f"docker-archive:{ours}:docker.io/test/base:1" if form == "docker" else f"oci-archive:{ours}"
        target = f"{kind}:{theirs}" + (":docker.io/test/base:1" if kind == "docker-archive" else "")
        subprocess.run(["skopeo", "copy", "--quiet", source, target], check=True, timeout=60)
        other = make_images(f"other-{form}")
        with theirs.open("rb") as file:
            names = other.load(file)
        loaded = other.find(names[0])
        assert names == (["test/base:1"] if kind == "docker-archive" else [loaded.id])
        # From Docker's form to OCI's skopeo writes the configuration anew, with the same meaning.
        assert loaded.id == image.id or (form, kind) == ("docker", "oci-archive")
        assert [layer.diff_id for layer in loaded.layers] == [layer.diff_id for layer in image.layers]
        assert other.check() == []


def rewritten(data: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """Copy a tar with members changed; None leaves one out."""
    result = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=result, mode="w") as new:
        for info in old:
            file = old.extractfile(info)
            body = change(info.name, file.read() if file else b"")
            if body is not None:
                info.size = len(body)
                new.addfile(info, io.BytesIO(body))
    return result.getvalue()


def test_damaged_archives_are_refused_whole(images: Images, image: ImageRecord, make_images: MakeImages) -> None:
    """A changed or missing blob is named; no image, lease or half-written file is left of any of the archive."""
    data = saved(images, "test/base:1")
    layer = image.layers[0].digest.partition(":")[2]
    other = make_images("other")

    def flip(name: str, body: bytes) -> bytes:
        return body[:-1] + bytes([body[-1] ^ 1]) if layer in name else body

    with pytest.raises(Corrupt, match=f"blob sha256:{layer} is corrupt: its digest is"):
        other.load(io.BytesIO(rewritten(data, flip)))
    with pytest.raises(Corrupt, match=f"image .*test/base:1 is incomplete: sha256:{layer} is missing"):
        other.load(io.BytesIO(rewritten(data, lambda name, body: None if layer in name else body)))
    assert other.list() == []
    assert other.leases.all() == []
    assert list((other.content.root / "ingest").iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither images"),
        (b"no tar at all" * 100, "tar stream is malformed"),
        (layer_tar(b"x"), "neither images in index.json nor a manifest.json"),
        (b"BZh91AY&SY", "only gzip and zstd"),
        (gzip.compress(layer_tar(b"x"))[:-20], "cannot be decompressed|neither"),
    ],
)
def test_what_is_no_archive_is_refused(images: Images, data: bytes, message: str) -> None:
    """Empty, foreign and cut-off input: one sentence each."""
    with pytest.raises((NotAnArchive, Corrupt), match=message):
        images.load(io.BytesIO(data))
    assert images.leases.all() == []


def test_old_docker_archives_with_links(images: Images) -> None:
    """Archives of old Docker versions name layers by directory and link equal ones."""
    layer = layer_tar(b"x")
    config = {
        "architecture": platforms.host().architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digests.of(layer)] * 2},
    }
    rows = [{"Config": "c.json", "RepoTags": ["old:1"], "Layers": ["one/layer.tar", "two/layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        members = {
            "one/layer.tar": layer,
            "c.json": json.dumps(config).encode(),
            "manifest.json": json.dumps(rows).encode(),
        }
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
        link = tarfile.TarInfo("two/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../one/layer.tar"
        archive.addfile(link)
    assert images.load(io.BytesIO(buffer.getvalue())) == ["old:1"]
    assert [layer.digest for layer in images.find("old:1").layers] == [digests.of(layer)] * 2


def test_save_checks_before_it_writes(images: Images, image: ImageRecord) -> None:
    """A missing image or blob is told before a byte is written."""
    buffer = io.BytesIO()
    for broken in ("missing", ""):
        if not broken:
            images.content.delete(image.layers[0].digest)
        with pytest.raises(TrivetError):
            images.save(["test/base:1", broken or "test/base:1"], buffer)
    assert buffer.getvalue() == b""


def test_check_finds_and_repairs(images: Images, image: ImageRecord) -> None:
    """Damaged and stray blobs are told with what would be done; repaired, the image can be had again."""
    imported(images, "fine:1", b"fine")
    path = images.content.path(image.layers[0].digest)
    path.chmod(0o600)
    path.write_bytes(b"damaged")
    images.content.add(b"stray")
    found = images.check()
    assert [finding.object for finding in found] == ["image test/base:1", "content store"]
    assert "is corrupt" in found[0].problem
    assert not any(finding.repaired for finding in found)
    assert all(finding.repaired for finding in images.check(repair=True))
    assert images.check() == []
    assert [name.familiar for record in images.list() for name in record.names] == ["fine:1"]


def test_import_applies_changes(images: Images) -> None:
    """`--change` instructions end up in the configuration."""
    changes = [
        'CMD ["sh", "-c", "true"]',
        "ENTRYPOINT /bin/app --flag",
        'ENV A=1 B="two words"',
        "ENV A 3",
        "EXPOSE 80 53/udp",
        "LABEL k=v",
        "USER app",
        "VOLUME /a /b",
        "WORKDIR /srv",
        "STOPSIGNAL QUIT",
    ]
    config = images.config(images.import_(io.BytesIO(layer_tar(b"x")), "made:1", changes, "by hand")).defaults
    assert (config.cmd, config.entrypoint) == (("sh", "-c", "true"), ("/bin/sh", "-c", "/bin/app --flag"))
    assert config.env == ("B=two words", "A=3")
    assert sorted(config.exposed_ports or {}) == ["53/udp", "80/tcp"]
    assert (config.labels, config.user, sorted(config.volumes or {})) == ({"k": "v"}, "app", ["/a", "/b"])
    assert (config.working_dir, config.stop_signal) == ("/srv", "QUIT")
    assert images.history("made:1")[0]["comment"] == "by hand"


@pytest.mark.parametrize("text", ["RUN make", "ENV", "CMD [", 'ENV A="', "LABEL =x", ""])
def test_malformed_changes(images: Images, text: str) -> None:
    """A change that can't be applied is refused before anything is stored."""
    with pytest.raises(MalformedChange):
        apply(Config(), text)
    with pytest.raises(MalformedChange):
        images.import_(io.BytesIO(layer_tar(b"x")), "made:1", [text])
    assert list(images.content.walk()) == []


def test_an_import_of_nonsense_is_refused(images: Images) -> None:
    """What is no tar makes no image."""
    for data in (b"", b"nonsense" * 200):
        with pytest.raises(Corrupt):
            images.import_(io.BytesIO(data), "made:1")
    assert images.list() == []
    assert list((images.content.root / "ingest").iterdir()) == []


def test_images_for_other_machines(images: Images) -> None:
    """An image for another architecture is refused with both platforms named."""
    record = images.create(scratch(platforms.parse("linux/s390x")), ["alien:1"])
    with pytest.raises(WrongPlatform, match=r"image alien:1 is for linux/s390x, not for linux/\w+"):
        images.check_platform(record, "alien:1")
    with pytest.raises(WrongPlatform, match="not for linux/arm64"):
        images.draft("alien:1", "linux/arm64")


def test_the_same_draft_is_the_same_image(images: Images, make_images: MakeImages) -> None:
    """A draft has one digest, wherever and whenever it becomes an image."""
    draft = scratch(platforms.parse("linux/amd64")).changed(Config(env=("A=b",)), history=History(created_by="ENV"))
    assert images.create(draft, ["a"]).digest == make_images("other").create(draft, ["b"]).digest


def test_collection_during_a_load_spares_it(images: Images, image: ImageRecord, make_images: MakeImages) -> None:
    """A collection in the middle of a load takes nothing that the load needs."""
    data = saved(images, "test/base:1")
    other = make_images("other")

    class Interrupting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            with other.records.transaction():
                collect.collect(other.content, roots(other))
            return super().read(512)

    assert other.load(Interrupting(data)) == ["test/base:1"]
    assert other.check() == []
