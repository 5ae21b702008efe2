"""Disk images: every format in and out, block by block the same, and the hostile ones refused."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import random
import shutil
import struct
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.base.error import Corrupt, Exhausted, TrivetError
from trivet.engine.disk import base, capture, convert, header, model
from trivet.engine.disk.disk import Source
from trivet.engine.disk.index import BLOCK, PLACE, RUN, Index, content_of, encode, restore
from trivet.engine.disk.model import BrokenDisk, Disk, DiskRefused, Firmware, Format, IsDisk
from trivet.engine.image import adopt
from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageRecord
from trivet.launch.spawn import run
from trivet.oci import manifest as manifests
from trivet.oci import platform as platforms
from trivet.oci.descriptor import Descriptor
from trivet.store.content import ContentStore
from trivet.store.lease import Leases
from trivet.store.record import Records

pytestmark = pytest.mark.needs("root", "qemu-img")

MakeImages = Callable[[str], Images]
DRIVER = {format: format.value for format in Format} | {Format.VHD: "vpc"}
MIB = 1 << 20
VALUES = st.one_of(
    st.integers(0, 255).map(lambda number: bytes([number])),
    st.binary(min_size=1, max_size=8),
    st.sampled_from([b"\xff" * 8, bytes(8), struct.pack(">Q", 1 << 63)]),
)


def make_raw(path: Path, *, size: int = 24 * MIB + 512, seed: int = 1) -> Path:
    """Make a sparse disk with data here and there, the same for the same seed."""
    chance = random.Random(seed)
    with path.open("xb") as file:
        file.truncate(size)
        for at in (0, 3 * BLOCK - 700, 40 * BLOCK + 1, 41 * BLOCK, size - 512):
            file.seek(at)
            file.write(chance.randbytes(min(3 * BLOCK // 2, size - at)))
        file.seek(60 * BLOCK)
        file.write(b"repeated" * (BLOCK // 8) * 10)
    return path


def qemu(*words: str | Path) -> None:
    """Run qemu-img."""
    subprocess.run(["qemu-img", *words], check=True, stdout=subprocess.DEVNULL)


def source(path: Path, form: Format) -> Source:
    """Say what a file is."""
    return Source(path=path, name=path.name, format=form, platform=platforms.host())


def import_(images: Images, path: Path, form: Format, name: str = "") -> ImageRecord:
    """Import a copy of a file, as an upload is one."""
    with images.disks.room() as room:
        subprocess.run(["cp", "--sparse=always", path, room / path.name], check=True)
        return images.disks.import_(source(room / path.name, form), name)


def export(images: Images, ref: str, form: Format, path: Path, *, compress: bool = False) -> Path:
    """Export to a file."""
    with path.open("wb") as file:
        images.disks.export(ref, form, file, compress=compress)
    return path


def sparse(path: Path) -> int:
    """Tell what a file takes of the disk."""
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("form", list(Format))
def test_every_format_comes_in_and_goes_out_unchanged(images: Images, tmp_path: Path, form: Format) -> None:
    """A raw disk made into each format by QEMU, imported, and exported again as that and as raw, is the same disk."""
    raw, file = make_raw(tmp_path / "disk.raw"), tmp_path / f"disk.{form}"
    if form != Format.RAW:
        qemu("convert", "-f", "raw", "-O", DRIVER[form], *(["-o", "force_size=on"] * (form == Format.VHD)), raw, file)
    record = import_(images, file, form, "test/disk:1")
    assert record.disk
    assert record.disk.virtual_size == raw.stat().st_size
    back = export(images, "test/disk:1", Format.RAW, tmp_path / "back.raw")
    assert back.read_bytes() == raw.read_bytes()
    out = export(images, record.id, form, tmp_path / f"out.{form}")
    qemu("compare", "-f", "raw", "-F", DRIVER[form], raw, out)
    assert import_(images, out, form).id == record.id


def test_zeros_and_repetitions_take_nothing(images: Images, tmp_path: Path) -> None:
    """A disk of 4 GiB with little on it is stored small, and becomes a file with holes again."""
    raw = make_raw(tmp_path / "disk.raw", size=4 << 30)
    record = import_(images, raw, Format.RAW, "big:1")
    data = 7 * BLOCK
    assert record.size < 2 * data
    with images.disks.using("big:1") as (_, base):
        assert base.stat().st_size == 4 << 30
        assert sparse(base) < 64 * BLOCK


def test_a_changed_block_costs_one_chunk(images: Images, tmp_path: Path) -> None:
    """A second image shares the packs of the first, and what is the same gets the same id in any format."""
    raw = make_raw(tmp_path / "disk.raw")
    first = import_(images, raw, Format.RAW, "a:1")
    before = dict(images.content.walk())
    with raw.open("r+b") as file:
        file.seek(41 * BLOCK + 5)
        file.write(b"changed")
    import_(images, raw, Format.RAW, "b:1")
    added = sum(size for digest, size in images.content.walk() if digest not in before)
    assert added < 2 * BLOCK < first.size
    again = export(images, "a:1", Format.RAW, tmp_path / "a.raw")
    assert import_(images, again, Format.RAW).id == first.id
    images.remove("a:1", force=True)
    assert export(images, "b:1", Format.RAW, tmp_path / "b.raw").read_bytes() == raw.read_bytes()


def test_it_travels_through_registries_and_archives(
    registry: str, images: Images, make_images: MakeImages, tmp_path: Path
) -> None:
    """Pushed and pulled, saved and loaded it has the same digests, and the same content."""
    raw = make_raw(tmp_path / "disk.raw")
    record = import_(images, raw, Format.RAW, f"{registry}/team/disk:1")
    pushed = asyncio.run(images.push(f"{registry}/team/disk:1"))
    elsewhere, other = make_images("elsewhere"), make_images("other")
    pulled = asyncio.run(elsewhere.pull(f"{registry}/team/disk:1"))
    assert (pulled.id, pulled.digest, pulled.disk) == (record.id, pushed, record.disk)
    assert import_(other, raw, Format.RAW).digest == pushed
    other.prune(every=True)
    archive = io.BytesIO()
    elsewhere.save([f"{registry}/team/disk:1"], archive)
    archive.seek(0)
    assert other.load(archive) == [f"{registry}/team/disk:1"]
    assert other.find(f"{registry}/team/disk:1").disk == record.disk
    assert export(other, record.id, Format.RAW, tmp_path / "back.raw").read_bytes() == raw.read_bytes()


def test_a_thin_disk_stands_on_the_image(images: Images, tmp_path: Path) -> None:
    """What a machine writes goes to its own file; the base is shared, stays as long as it is held, and is made once."""
    raw = make_raw(tmp_path / "disk.raw")
    record = import_(images, raw, Format.RAW, "a:1")
    thin = tmp_path / "thin.qcow2"
    with images.disks.using("a:1") as (_, base):
        images.disks.overlay("a:1", thin, 32 * MIB)
        assert images.disks.bases.prune([]) == 0
        assert base.exists()
    qemu("convert", "-f", "qcow2", "-O", "raw", thin, tmp_path / "seen.raw")
    assert (tmp_path / "seen.raw").read_bytes() == raw.read_bytes().ljust(32 * MIB, b"\0")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", thin], check=True, stdout=subprocess.DEVNULL)
    assert base.read_bytes() == raw.read_bytes()
    assert sparse(thin) < MIB
    with pytest.raises(TrivetError, match="too small"):
        images.disks.overlay("a:1", tmp_path / "small.qcow2", MIB)
    images.users = lambda key: ["vm"] * (key == record.id)
    images.prune(every=True)
    assert base.exists()
    shown = images.df_disks()
    assert (shown.total, shown.active, shown.reclaimable) == (1, 1, 0)
    assert shown.size == sparse(base)
    images.users = lambda key: []
    assert images.prune(every=True).freed > record.size
    assert not base.exists()
    assert not dict(images.content.walk())


def test_a_broken_pack_is_never_handed_out(images: Images, tmp_path: Path) -> None:
    """A chunk that isn't what it was stops everything, and check names the image."""
    raw = make_raw(tmp_path / "disk.raw")
    record = import_(images, raw, Format.RAW, "a:1")
    pack = images.content.path(record.layers[1].digest)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    with pytest.raises(BrokenDisk, match="a:1 is corrupt"):
        images.disks.overlay("a:1", tmp_path / "thin.qcow2")
    assert not list(images.disks.bases._bases.iterdir())
    assert [finding.object for finding in images.check()] == ["image a:1"]


def test_it_is_no_image_of_files(images: Images, tmp_path: Path) -> None:
    """Running, building upon, and listing packages of a disk image is refused in a sentence."""
    import_(images, make_raw(tmp_path / "disk.raw"), Format.RAW, "a:1")
    for action in (images.usable, images.draft, images.bill):
        with pytest.raises(IsDisk, match="it is the disk of a machine"):
            action("a:1")
    assert images.inspect("a:1").kind == "disk"
    assert images.history("a:1")
    assert images.why(images.find("a:1").layers[1].digest)[-1] == "image a:1"


def hostile(path: Path, what: str) -> tuple[Path, Format]:
    """Make a file that wants more than being read."""
    raw = path / "secret.raw"
    raw.write_bytes(b"secret".ljust(MIB, b"\0"))
    file = path / "bad"
    match what:
        case "backing":
            qemu("create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", file)
        case "data file":
            qemu("create", "-q", "-f", "qcow2", "-o", f"data_file={raw},data_file_raw=on", file, "1M")
        case "encrypted":
            qemu("create", "-q", "-f", "qcow2", file, "1M")
            with file.open("r+b") as plain:  # QEMU takes seconds to make a real one
                plain.seek(32)
                plain.write(struct.pack(">I", 2))
        case "huge":
            qemu("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", file, "64T")
        case "vmdk parent":
            qemu("create", "-q", "-f", "vmdk", path / "parent.vmdk", "1M")
            qemu("create", "-q", "-f", "vmdk", "-b", path / "parent.vmdk", "-F", "vmdk", file)
            return file, Format.VMDK
        case "vmdk extents":
            qemu("create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path / "flat.vmdk", "1M")
            return path / "flat.vmdk", Format.VMDK
        case "vmdk embedded extents":
            qemu("create", "-q", "-f", "vmdk", file, "1M")
            data = file.read_bytes()
            file.write_bytes(data.replace(b'SPARSE "bad"', b'FLAT "/etc/passwd" 0'.ljust(12)[:12]))
            return file, Format.VMDK
        case "vmdk no capacity":
            qemu("create", "-q", "-f", "vmdk", file, "1M")
            changed = bytearray(file.read_bytes())
            changed[12:20] = bytes(8)
            file.write_bytes(changed)
            return file, Format.VMDK
        case "raw called qcow2":
            return raw, Format.QCOW2
        case "qcow2 called vdi":
            qemu("create", "-q", "-f", "qcow2", file, "1M")
            return file, Format.VDI
    return file, Format.QCOW2


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("backing", "it has a backing file"),
        ("data file", "its data is in another file"),
        ("encrypted", "it is encrypted"),
        ("huge", "more than 8 TiB"),
        ("vmdk parent", "it has a parent"),
        ("vmdk extents", "its data is in other files"),
        ("vmdk embedded extents", "its data is in other files"),
        ("vmdk no capacity", "its data is in other files"),
        ("raw called qcow2", "does not begin like one"),
        ("qcow2 called vdi", "does not begin like one"),
    ],
)
def test_hostile_files_are_refused(images: Images, tmp_path: Path, what: str, why: str) -> None:
    """A file that refers to others, is too large, or isn't what it is called, is refused by name; nothing is left."""
    file, form = hostile(tmp_path, what)
    with pytest.raises((DiskRefused, Corrupt), match=f"bad|flat|secret.*{why}"):
        import_(images, file, form, "bad:1")
    assert not images.list()
    images.sweep()
    assert not dict(images.content.walk())
    assert not list(images.content.scratch.iterdir())


@pytest.mark.parametrize("form", sorted(set(Format) - {Format.RAW}))
@pytest.mark.parametrize("left", [0.0, 0.1, 0.5, 0.9])
def test_truncated_files_are_refused(
    images: Images, samples: dict[Format, bytes], tmp_path: Path, form: Format, left: float
) -> None:
    """A file whose end is missing is refused, whatever part of it is there."""
    file = tmp_path / "bad"
    file.write_bytes(samples[form][: int(len(samples[form]) * left)])
    with pytest.raises((DiskRefused, Corrupt), match="bad"):
        import_(images, file, form)


def test_a_raw_disk_is_never_looked_into(images: Images, tmp_path: Path) -> None:
    """A guest that writes another format's header to its disk gets that header back, and nothing else."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret".ljust(MIB, b"\0"))
    trap = tmp_path / "trap"
    qemu("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", trap)
    os.truncate(trap, 2 * MIB)
    import_(images, trap, Format.RAW, "a:1")
    assert export(images, "a:1", Format.RAW, tmp_path / "back").read_bytes() == trap.read_bytes()
    out = export(images, "a:1", Format.VDI, tmp_path / "out.vdi")
    qemu("compare", "-f", "raw", "-F", "vdi", trap, out)


def test_what_converts_sees_nothing_of_the_host(tmp_path: Path, images: Images) -> None:
    """A program in qemu-img's place is nobody, has no network and no capability, and can't write or read elsewhere."""
    victim = tmp_path / "victim"
    victim.write_text("x")
    script = (
        "id -u; ls /; cat /proc/net/dev 2>&1 | head -1; touch /usr/x /in/x /in/disk 2>&1 | wc -l;"
        f"cat {victim} 2>&1; echo ok >/out/disk; ulimit -n"
    )
    with images.disks.room() as room:
        (room / "src").write_bytes(b"")
        (room / "src").chmod(0o444)
        out = room / "out"
        out.mkdir()
        os.chown(out, convert.NOBODY, convert.NOBODY)
        done = run(convert.confined(["/usr/bin/sh", "-c", script], room, room / "src", out))
        said = done.output.decode().split("\n")
        assert (out / "disk").read_text() == "ok\n"
    assert said[0] == str(convert.NOBODY), (said, done.error_output)
    assert {"etc", "root", "home", "proc", "sys", "dev", "work", "tmp", "var"}.isdisjoint(said)
    assert "3" in said
    assert f"cat: {victim}: No such file or directory" in said
    assert "64" in said


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_bomb_leaves_room_on_the_disk(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that unpacks to more than there is room for is stopped on the way, by us or by the disk."""
    raw, bomb = tmp_path / "raw", tmp_path / "bomb.qcow2"
    with raw.open("xb") as file:
        for number in range(256):
            file.write(bytes([number]) * MIB)
    qemu("convert", "-f", "raw", "-O", "qcow2", "-c", raw, bomb)
    assert bomb.stat().st_size < 4 * MIB
    images = lone_images(small)
    for reserve in (64 * MIB, 0):
        monkeypatch.setattr(convert, "RESERVE", reserve)
        with pytest.raises(Exhausted, match=r"does not fit|no space left"):
            import_(images, bomb, Format.QCOW2)
        assert not list(images.content.scratch.iterdir())
        assert shutil.disk_usage(small).free > 120 * MIB
    images.records.close()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[Format, bytes]:
    """A good file of each format."""
    place = tmp_path_factory.mktemp("samples")
    raw = make_raw(place / "disk.raw", size=12 * MIB)
    found = {}
    for form in set(Format) - {Format.RAW}:
        qemu("convert", "-f", "raw", "-O", DRIVER[form], raw, place / form)
        found[form] = (place / form).read_bytes()
    return found


@pytest.mark.parametrize("form", sorted(set(Format) - {Format.RAW}))
def test_headers_may_say_anything(samples: dict[Format, bytes], tmp_path: Path, form: Format) -> None:
    """Whatever a header says, reading it ends in a size within bounds or a refusal, never in anything else."""
    good = samples[form]
    places = {Format.VHDX: (0, 192 << 10, 192 << 10, 2 << 20), Format.VHD: (0, len(good) - 512)}.get(form, (0, 512))
    place = tmp_path / "file"

    @settings(max_examples=60)
    @given(data=st.data())
    def attempt(data: st.DataObject) -> None:
        sample = bytearray(good)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.sampled_from(places)) + data.draw(st.integers(0, 600))
            value = data.draw(VALUES)
            sample[at : at + len(value)] = value
        cut = data.draw(st.one_of(st.none(), st.integers(0, len(sample))))
        place.write_bytes(sample[:cut])
        with place.open("rb") as file:
            try:
                size = header.virtual_size(file, form, "it")
            except DiskRefused:
                return
        assert 512 <= size <= 8 << 40

    attempt()


def test_firmware_and_platform_are_kept(images: Images, tmp_path: Path) -> None:
    """What was said about the disk stands in its configuration."""
    raw = make_raw(tmp_path / "disk.raw")
    wish = Source(
        path=raw, name="x", format=Format.RAW, platform=platforms.parse("linux/arm64"), firmware=Firmware.UEFI
    )
    record = images.disks.import_(wish, "a:1")
    assert images.inspect("a:1").config["firmware"] == "uefi"
    assert (record.platform, record.disk and record.disk.architecture) == ("linux/arm64", "arm64")


def artifact(images: Images, index: Index, packs: list[bytes], content: str = "") -> str:
    """Make an artifact of an index and packs that may be anything; return its digest."""
    told = content or content_of(index.size, _parts(index))
    disk = Disk(virtual_size=index.size, content=told, format=Format.RAW, os="linux", architecture="amd64")

    def stored(data: bytes, kind: str) -> Descriptor:
        return Descriptor(media_type=kind, digest=images.content.add(data), size=len(data))

    layers = [stored(encode(index), model.INDEX), *(stored(pack, model.PACK) for pack in packs)]
    return images.content.add(capture.manifest_of(stored(msgspec.json.encode(disk), model.CONFIG), layers, {}))


def adopted(images: Images, digest: str) -> ImageRecord:
    """Take an artifact in as a pull does."""
    parsed = manifests.parse(images.content.read(digest, limit=manifests.LIMIT), subject="it")
    assert isinstance(parsed, manifests.Manifest)
    return adopt.describe(images.content, digest, adopt.Found(digest, parsed), subject="it")


def _parts(index: Index) -> Iterator[bytes | int]:
    try:
        yield from (index.chunk(run).digest if run >= 0 else run for run in index.blocks())
    except struct.error:
        return


@settings(max_examples=40)
@given(data=st.data())
def test_indexes_may_say_anything(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """An index from elsewhere is refused, or what it makes is a disk of its size whose every block is proven."""
    images = lone_images(tmp_path_factory.mktemp("engine"))
    block = b"x" * BLOCK
    pack = zstandard.ZstdCompressor().compress(block)
    numbers = st.sampled_from([0, 1, 2, len(pack), BLOCK, 1 << 31, (1 << 32) - 1])
    places = [
        PLACE.pack(data.draw(st.sampled_from([0, 0, 1, 65535])), *(data.draw(numbers) for _ in range(3)))
        if data.draw(st.booleans())
        else PLACE.pack(0, 0, len(pack), BLOCK)
        for _ in range(data.draw(st.integers(0, 3)))
    ]
    runs = data.draw(st.lists(st.sampled_from([-1, -2, 0, 0, 1, 2, -(1 << 31), (1 << 31) - 1]), max_size=6))
    index = Index(
        data.draw(st.sampled_from([512, BLOCK, 2 * BLOCK, 3 * BLOCK, 8 << 40])),
        hashlib.sha256(block).digest() * len(places),
        b"".join(places)[: data.draw(st.sampled_from([None, None, 5]))],
        b"".join(RUN.pack(run) for run in runs),
    )
    try:
        record = adopted(images, artifact(images, index, [pack]))
        target = tmp_path_factory.getbasetemp() / "restored"
        with target.open("w+b") as file:
            parsed, _ = base.read(images.content, record.manifest, "it")
            assert restore(images.content, parsed, file.fileno(), "it") == index.size
        assert target.stat().st_size == index.size
    except (BrokenDisk, Exhausted):
        pass
    finally:
        images.records.close()


def lone_images(place: Path) -> Images:
    """Images without snapshotters."""
    records = Records(place / "record.db")
    return Images(ContentStore(place / "content"), records, {}, Leases(records))


def test_an_index_is_no_bomb(images: Images) -> None:
    """A few bytes that unpack to a large index, or to one of a disk that can't be, are refused and take no memory."""
    block = b"x" * BLOCK
    pack = zstandard.ZstdCompressor().compress(block)
    digest, place = hashlib.sha256(block).digest(), PLACE.pack(0, 0, len(pack), BLOCK)
    for runs, why in ((bytes(64 << 20), "larger than 16 MiB"), (bytes(1 << 18), "don't add up")):
        made = artifact(images, Index(2 << 40, digest, place, runs), [pack], f"sha256:{'0' * 64}")
        tracemalloc.start()
        with pytest.raises(BrokenDisk, match=why):
            adopted(images, made)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 64 << 20
