"""Disk images by the command: in, looked at, out, refused."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.image.test_disk import make_raw

pytestmark = pytest.mark.needs("root", "qemu-img")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk."""
    return make_raw(tmp_path_factory.mktemp("disk") / "disk.raw")


@pytest.fixture(scope="module")
def disk(daemon: Daemon, raw: Path) -> str:
    """The name of a disk image."""
    qcow2 = raw.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, qcow2], check=True)
    daemon.ok("image", "import", "-q", "--firmware", "uefi", qcow2, "test-disk:1")
    return "test-disk:1"


def test_it_is_listed_and_described(daemon: Daemon, disk: str, raw: Path) -> None:
    """The list says that it is a disk, inspect how large it is for a machine and what it was made from."""
    assert [line for line in daemon.ok("images").splitlines() if line.startswith(disk) and "(disk)" in line]
    shown = json.loads(daemon.ok("image", "inspect", disk))[0]
    assert (shown["kind"], shown["virtual_size"]) == ("disk", raw.stat().st_size)
    assert (shown["config"]["format"], shown["config"]["firmware"]) == ("qcow2", "uefi")
    layer = shown["layers"][1]["digest"]
    assert f"kept by image {disk}" in daemon.ok("why", layer)


@pytest.mark.parametrize("name", ["out.raw", "out.vmdk", "out.vdi"])
def test_it_is_written_to_a_file(daemon: Daemon, disk: str, raw: Path, tmp_path: Path, name: str) -> None:
    """The name of the file says its format, and the content is what came in; zeros stay holes."""
    daemon.ok("image", "export", "-q", disk, tmp_path / name)
    form = name.partition(".")[2]
    subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", form, raw, tmp_path / name], check=True)
    assert (tmp_path / name).stat().st_blocks * 512 < raw.stat().st_size // 2


@pytest.mark.parametrize("level", ["process", "container", "vm"])
def test_it_does_not_run_as_an_instance(daemon: Daemon, disk: str, level: str) -> None:
    """A disk is no root file system, and the sentence says so."""
    done = daemon.trivet("run", "--isolation", level, disk, "true")
    assert done.returncode == 125
    assert b"is the disk of a machine" in done.stderr


def test_what_a_name_does_not_say_is_asked_for(daemon: Daemon, raw: Path, tmp_path: Path) -> None:
    """A format is never guessed: .img says nothing, and content that contradicts the name isn't believed."""
    image, lie, wrong = tmp_path / "disk.img", tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    image.write_bytes(raw.read_bytes())
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", lie, "1M"], check=True)
    wrong.write_bytes(raw.read_bytes())
    for path, said in (
        (image, b"does not say what is in it"),
        (lie, b"begins like qcow2"),
        (wrong, b"cannot be taken"),
    ):
        done = daemon.trivet("image", "import", "-q", path, "wrong:1")
        assert done.returncode in (1, 2)
        assert said in done.stderr
    assert b"disk.qcow2" in done.stderr
    assert "wrong" not in daemon.ok("images")
    daemon.ok("image", "import", "-q", "--format", "raw", image, "right:1")


def test_a_pipe_will_do(daemon: Daemon, raw: Path) -> None:
    """Standard input can be a disk, if its format is said; standard output too."""
    daemon.ok("image", "import", "-q", "--format", "raw", "-", "piped:1", input=raw.read_bytes())
    done = daemon.trivet("image", "export", "-q", "--format", "raw", "piped:1")
    assert done.stdout == raw.read_bytes()


def test_an_appliance_comes_and_goes(daemon: Daemon, disk: str, raw: Path, tmp_path: Path) -> None:
    """An image goes out as OVA, and comes back from it and from the OVF and its files in a directory."""
    daemon.ok("image", "export", "-q", disk, tmp_path / "box.ova")
    with tarfile.open(tmp_path / "box.ova") as archive:
        archive.extractall(tmp_path / "open")
    for name, path in (("ova:1", tmp_path / "box.ova"), ("ovf:1", tmp_path / "open" / "test-disk.ovf")):
        result = json.loads(daemon.ok("image", "import", "-q", "--json", path, name))
        assert (result["name"], result["machine"]["firmware"]) == (name, "uefi")
        back = tmp_path / "back.raw"
        daemon.ok("image", "export", "-q", name, back)
        assert back.read_bytes() == raw.read_bytes()
    (tmp_path / "open" / "test-disk-disk1.vmdk").unlink()
    done = daemon.trivet("image", "import", "-q", tmp_path / "open" / "test-disk.ovf", "lost:1")
    assert b"is missing" in done.stderr
