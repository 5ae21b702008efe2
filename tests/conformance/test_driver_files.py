"""The contract, part three: the root file system, volumes and other mounts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.conformance.harness import Harness

from trivet.base.error import NotFound
from trivet.isolation.plan import File, Mount


def test_files_are_kept_over_a_restart(instance: Harness) -> None:
    """What the program wrote is there when the instance is started again, and the image is as it was."""
    assert instance.shell("echo kept > /var/file; rm /etc/group; echo changed > /etc/passwd").code == 0
    assert instance.shell("cat /var/file /etc/passwd; test -e /etc/group || echo gone").lines == [
        "kept",
        "changed",
        "gone",
    ]


def test_image_is_not_changed(instance: Harness, root_tree: Path) -> None:
    """Writing inside doesn't change the image."""
    instance.shell("echo x > /new; echo x >> /etc/passwd; rm /opt/plain")
    assert not (root_tree / "new").exists()
    assert "x\n" not in (root_tree / "etc/passwd").read_text().splitlines(keepends=True)
    assert (root_tree / "opt/plain").exists()


def test_read_only_root(instance: Harness) -> None:
    """A read-only root refuses writes; mounts in it don't."""
    root = msgspec.structs.replace(instance.root, read_only=True)
    mounts = (Mount(kind="tmpfs", target="/scratch"),)
    result = instance.shell("echo x > /new; echo $?; echo y > /scratch/y; cat /scratch/y", root=root, mounts=mounts)
    assert result.lines == ["1", "y"]
    assert b"Read-only file system" in result.stderr


def test_bind_directory(instance: Harness, tmp_path: Path) -> None:
    """A host directory is seen inside, both ways, with owner and mode."""
    source = tmp_path / "shared"
    source.mkdir()
    (source / "in").write_text("from the host\n")
    script = "cat /data/in; echo from inside > /data/out; chown 1000:50 /data/out; chmod 640 /data/out"
    result = instance.shell(script, mounts=(Mount(kind="bind", source=str(source), target="/data"),))
    assert (result.code, result.text) == (0, "from the host"), result
    out = (source / "out").stat()
    assert ((source / "out").read_text(), out.st_uid, out.st_gid, out.st_mode & 0o777) == (
        "from inside\n",
        1000,
        50,
        0o640,
    )


def test_bind_file(instance: Harness, tmp_path: Path) -> None:
    """A single host file is seen inside, at a path that didn't exist."""
    (tmp_path / "one").write_text("one\n")
    mounts = (Mount(kind="bind", source=str(tmp_path / "one"), target="/new/place/file"),)
    assert instance.run("cat", "/new/place/file", mounts=mounts).text == "one"


def test_read_only_bind(instance: Harness, tmp_path: Path) -> None:
    """A read-only mount can be read, not written."""
    (tmp_path / "shared").mkdir()
    mounts = (Mount(kind="bind", source=str(tmp_path / "shared"), target="/data", read_only=True),)
    result = instance.shell("echo x > /data/x; echo $?; ls /data", mounts=mounts)
    assert result.lines == ["1"]
    assert list((tmp_path / "shared").iterdir()) == []


def test_named_volume_is_shared_and_kept(instance: Harness, tmp_path: Path) -> None:
    """A named volume keeps its files for the next start."""
    (tmp_path / "volume").mkdir()
    mounts = (Mount(kind="bind", source=str(tmp_path / "volume"), target="/var/lib/data", name="data"),)
    instance.shell("echo 1 >> /var/lib/data/count", mounts=mounts)
    assert instance.shell("echo 2 >> /var/lib/data/count; cat /var/lib/data/count", mounts=mounts).lines == ["1", "2"]


def test_missing_mount_source(instance: Harness, tmp_path: Path) -> None:
    """A host path that isn't there is refused by its name."""
    missing = str(tmp_path / "not-there")
    with pytest.raises(NotFound, match=missing):
        instance.run("true", mounts=(Mount(kind="bind", source=missing, target="/data"),))


def test_tmpfs(instance: Harness) -> None:
    """A tmpfs has the size and mode asked for, and is empty again after a restart."""
    mounts = (Mount(kind="tmpfs", target="/scratch", size=1 << 20, mode=0o1770),)
    script = "ls /scratch | wc -l; stat -c %a /scratch; head -c 2000000 /dev/zero > /scratch/x; wc -c < /scratch/x"
    for _ in range(2):
        assert instance.shell(script, mounts=mounts).lines == ["0", "1770", str(1 << 20)]


def test_engine_files(instance: Harness, tmp_path: Path) -> None:
    """The engine's files (hosts, resolv.conf) are there with their content."""
    (tmp_path / "hosts").write_text("10.0.0.1 db\n")
    files = (File(target="/etc/hosts", source=str(tmp_path / "hosts"), content=b"10.0.0.1 db\n"),)
    assert instance.run("cat", "/etc/hosts", files=files).text == "10.0.0.1 db"


def test_devices(instance: Harness) -> None:
    """The usual devices work."""
    result = instance.shell(
        "echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 8 /dev/urandom | wc -c;"
        "ls -d /dev/fd /dev/pts /dev/shm; echo x > /dev/full"
    )
    assert result.lines == ["4", "8", "/dev/fd", "/dev/pts", "/dev/shm"]
    assert b"No space left" in result.stderr


def test_shared_memory_size(instance: Harness) -> None:
    """/dev/shm has the plan's size where it is the instance's own."""
    instance.only_with("tmpfs /dev/shm of the plan's size")
    size = instance.shell("df -k /dev/shm | tail -1 | awk '{print $2}'", shm_size=8 << 20).text
    assert int(size) == 8 << 10


def test_nothing_shows_on_the_host(instance: Harness) -> None:
    """While an instance runs, no mount of it is seen on the host."""
    session = instance.start("sh", "-c", "echo up; sleep 60", mounts=(Mount(kind="tmpfs", target="/scratch"),))
    session.until(b"up")
    assert instance.mounts() == []
