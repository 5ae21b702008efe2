"""A snapshot's moment: it holds what was there while everybody stood still, whatever is changed afterwards."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trivet.client.schema_volume import VolumeRequest
from trivet.engine.volume.capture import LARGE, PIECE
from trivet.engine.volume.snapshot import Pause, Snapshots
from trivet.engine.volume.volume import Volumes
from trivet.store.content import ContentStore
from trivet.store.lease import Leases
from trivet.store.record import Records

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def snapshots(tmp_path: Path) -> Iterator[Snapshots]:
    """Snapshots of volumes of their own."""
    records = Records(tmp_path / "record.db")
    leases = Leases(records)
    yield Snapshots(Volumes(records, tmp_path / "volume"), ContentStore(tmp_path / "content"), records, leases)
    records.close()


def _content(snapshots: Snapshots, name: str) -> dict[str, tuple[int, bytes]]:
    with snapshots.open(snapshots.find("data", name)) as stream:
        data = b"".join(iter(lambda: stream.read(1 << 20), b""))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            one.name: (one.mode, file.read() if one.isreg() and (file := tar.extractfile(one)) else b"") for one in tar
        }


def test_the_moment_is_what_counts(snapshots: Snapshots) -> None:
    """Large files copied in pieces, small ones, one with holes and directories are as they were in the moment."""
    root = Path(snapshots.volumes.create(VolumeRequest(name="data")).mountpoint)
    large = os.urandom(2 * PIECE + LARGE + 12345)
    (root / "d").mkdir(mode=0o700)
    (root / "kept").mkdir(mode=0o711)
    (root / "large").write_bytes(bytes(len(large)))
    (root / "small").write_text("before")
    with (root / "holes").open("wb") as file:
        file.truncate(LARGE)

    @contextmanager
    def still() -> Iterator[Pause]:
        # Since the last look everything has changed; and it changes again once they go on.
        (root / "large").write_bytes(large)
        (root / "small").write_text("then")
        (root / "d").chmod(0o750)
        (root / "d/new").write_text("new")
        with (root / "holes").open("r+b") as file:
            file.write(b"here")
        pause = Pause()
        pause.begin()
        yield pause
        pause.end()
        (root / "large").write_bytes(b"gone")
        (root / "small").write_text("after")
        (root / "d").chmod(0o700)
        (root / "d/new").unlink()

    taken = snapshots.take("data", "one", still)
    assert taken.pause > 0
    found = {name.removeprefix("./").rstrip("/"): what for name, what in _content(snapshots, "one").items()}
    assert found["large"][1] == large
    assert found["small"][1] == b"then"
    assert (found["d"][0], found["d/new"][1], found["kept"][0]) == (0o750, b"new", 0o711)
    assert found["holes"][1] == b"here" + bytes(LARGE - 4)
