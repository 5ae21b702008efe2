"""Volumes on a real file system."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.base.error import Conflict, InvalidArgument, NotFound, Unsupported
from trivet.client.schema_volume import VolumeRequest
from trivet.engine.volume.volume import Volumes, disk_usage
from trivet.store.record import Records

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    records = Records(tmp_path / "record.db")
    yield records
    records.close()


@pytest.fixture
def volumes(records: Records, tmp_path: Path) -> Volumes:
    return Volumes(records, tmp_path / "volume")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A directory such as images have: owners, modes, links of both kinds, links that lead out, a pipe, a device."""
    root = tmp_path / "image"
    (root / "inner").mkdir(parents=True)
    (root / "file").write_text("content")
    (root / "file").chmod(0o4750)
    os.chown(root / "file", 33, 44)
    (root / "file").chmod(0o4750)
    os.setxattr(root / "file", "user.note", b"kept")
    os.utime(root / "file", ns=(1, 1_000_000_001))
    os.link(root / "file", root / "inner" / "again")
    (root / "out").symlink_to(tmp_path / "canary")
    (root / "inner" / "up").symlink_to("../../canary")
    os.mkfifo(root / "pipe")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    root.chmod(0o1770)
    os.chown(root, 70, 70)
    (tmp_path / "canary").mkdir()
    return root


def test_create(volumes: Volumes) -> None:
    """A volume is made once; asked for again it is the same, with other options it is refused."""
    record = volumes.create(VolumeRequest(name="data", labels={"a": "b"}))
    assert volumes.create(VolumeRequest(name="data")) == record
    assert Path(record.mountpoint).is_dir()
    assert not record.anonymous
    with pytest.raises(Conflict, match="data"):
        volumes.create(VolumeRequest(name="data", options={"type": "none", "o": "bind", "device": "/"}))


def test_nobody_looks_in(volumes: Volumes, tmp_path: Path) -> None:
    """Other users can't list volumes, whatever the umask was."""
    record = volumes.create(VolumeRequest(name="data"))
    for path in (tmp_path / "volume", Path(record.mountpoint).parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o701


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "a\0b", "ä", "x" * 129])
def test_bad_names(volumes: Volumes, name: str, tmp_path: Path) -> None:
    """A name that could be a path, or isn't a name, is refused and makes nothing."""
    with pytest.raises(InvalidArgument):
        volumes.create(VolumeRequest(name=name))
    assert list((tmp_path / "volume").iterdir()) == []


def test_anonymous(volumes: Volumes) -> None:
    """Anonymous volumes get long names of their own."""
    one, two = volumes.create(VolumeRequest()), volumes.create(VolumeRequest())
    assert one.anonymous
    assert len(one.name) == 64
    assert one.name != two.name


def test_fill(volumes: Volumes, image: Path) -> None:
    """A new volume becomes like the image's directory, links stay links, devices stay out."""
    record = volumes.create(VolumeRequest(name="data"))
    volumes.fill("data", image)
    copy = Path(record.mountpoint)
    state = (copy / "file").stat()
    assert (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (33, 44, 0o4750)
    assert state.st_mtime_ns == 1_000_000_001
    assert os.getxattr(copy / "file", "user.note") == b"kept"
    assert (copy / "inner" / "again").stat().st_ino == state.st_ino
    assert (copy / "out").readlink() == (image / "out").readlink()
    assert (copy / "inner" / "up").readlink() == Path("../../canary")
    assert (copy / "pipe").is_fifo()
    assert not (copy / "null").exists()
    assert (copy.stat().st_uid, stat.S_IMODE(copy.stat().st_mode)) == (70, 0o1770)
    assert [path.name for path in copy.parent.iterdir()] == ["data"]


def test_fill_only_what_is_empty(volumes: Volumes, image: Path) -> None:
    """Data that is there is never touched."""
    record = volumes.create(VolumeRequest(name="data"))
    (Path(record.mountpoint) / "mine").write_text("data")
    volumes.fill("data", image)
    assert [path.name for path in Path(record.mountpoint).iterdir()] == ["mine"]


def test_fill_is_all_or_nothing(volumes: Volumes, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When copying fails half-way, the volume is still empty and nothing lies beside it."""
    record = volumes.create(VolumeRequest(name="data"))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    monkeypatch.setattr(os, "sendfile", full)
    with pytest.raises(OSError, match="No space"):
        volumes.fill("data", image)
    assert volumes.is_empty(record)
    assert [path.name for path in Path(record.mountpoint).parent.iterdir()] == ["data"]


def test_users_keep_it(volumes: Volumes) -> None:
    """A volume in use stays, by name of the user; then it goes with its data."""
    record = volumes.create(VolumeRequest(name="data"))
    with pytest.raises(Conflict, match="instances web, db"):
        volumes.remove("data", {"data": ["web", "db"]}, force=True)
    volumes.remove("data", {})
    assert not Path(record.mountpoint).parent.exists()
    with pytest.raises(NotFound, match="data"):
        volumes.remove("data")
    volumes.remove("data", force=True)


def test_remove_follows_no_link(volumes: Volumes, tmp_path: Path) -> None:
    """What links in a volume point to survives its removal."""
    record = volumes.create(VolumeRequest(name="data"))
    (tmp_path / "canary").write_text("alive")
    (Path(record.mountpoint) / "link").symlink_to(tmp_path)
    volumes.remove("data")
    assert (tmp_path / "canary").read_text() == "alive"


def test_prune(volumes: Volumes) -> None:
    """Pruning takes anonymous volumes nobody uses, named ones only when told; a dry run takes nothing."""
    for request in (VolumeRequest(), VolumeRequest(name="named"), VolumeRequest(name="used")):
        (Path(volumes.create(request).mountpoint) / "file").write_bytes(b"x" * 100_000)
    (anonymous,) = (volume.name for volume in volumes.list({}) if volume.anonymous)
    dry = volumes.prune({"used"}, every=True, dry_run=True)
    assert set(dry.deleted) == {f"volume {anonymous}", "volume named"}
    assert dry.freed >= 200_000
    assert volumes.prune({"used"}).deleted == [f"volume {anonymous}"]
    assert volumes.prune({"used"}, every=True).deleted == ["volume named"]
    assert [volume.name for volume in volumes.list({"used": ["web"]})] == ["used"]


def test_size(volumes: Volumes) -> None:
    """Sizes count blocks, a file with two names once, and follow no link."""
    data = Path(volumes.create(VolumeRequest(name="data")).mountpoint)
    (data / "file").write_bytes(b"x" * 1_000_000)
    os.link(data / "file", data / "again")
    (data / "usr").symlink_to("/usr")
    with (data / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    assert 1_000_000 <= disk_usage(data) < 1_100_000
    assert volumes.show("data", {}, size=True).size == disk_usage(data)
    assert volumes.show("data", {"data": ["web"]}).users == ["web"]


def test_host_directory(volumes: Volumes, tmp_path: Path) -> None:
    """The options compose files use show a host directory, which outlives the volume; other mounts are refused."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    options = {"type": "none", "o": "bind", "device": str(tmp_path / "mine")}
    assert volumes.create(VolumeRequest(name="mine", options=options)).mountpoint == str(tmp_path / "mine")
    volumes.remove("mine")
    assert (tmp_path / "mine" / "file").exists()
    with pytest.raises(Unsupported, match="file system ext4"):
        volumes.create(VolumeRequest(name="n", options={"type": "ext4", "device": "/dev/sda"}))
    with pytest.raises(InvalidArgument, match="/nowhere"):
        volumes.create(VolumeRequest(name="n", options={**options, "device": "/nowhere"}))
    with pytest.raises(Unsupported, match="driver nfs"):
        volumes.create(VolumeRequest(name="n", driver="nfs"))


def test_after_a_crash(records: Records, volumes: Volumes, tmp_path: Path) -> None:
    """Trash of a killed engine goes at the next start; data without a record stays."""
    volumes.create(VolumeRequest(name="data"))
    (tmp_path / "volume" / ".trash-1" / "data").mkdir(parents=True)
    (tmp_path / "volume" / "orphan" / "data").mkdir(parents=True)
    (tmp_path / "volume" / "orphan" / "data" / "file").write_text("precious")
    again = Volumes(records, tmp_path / "volume")
    assert {path.name for path in (tmp_path / "volume").iterdir()} == {"data", "orphan"}
    adopted = again.create(VolumeRequest(name="orphan"))
    assert (Path(adopted.mountpoint) / "file").read_text() == "precious"
