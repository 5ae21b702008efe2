"""A full disk: one sentence naming the file or object, nothing half-made, and all goes on when there is room again."""

from __future__ import annotations

import http.client
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import BIN, Daemon
from tests.fault.conftest import IMAGE
from tests.image.served import trivet_registry
from tests.vm.box import NEEDS, PATIENCE, console, said
from tests.vm.tiny import PARAMETERS, initrd

from trivet.base.error import Exhausted, TrivetError
from trivet.client.schema_volume import VolumeRequest
from trivet.oci import digest as digests
from trivet.store.record import RESERVE, Records, Table

SIZE = 24 << 20


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Daemon]:
    """An engine whose root is a file system of 24 MiB."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        root = tmp_path / "root"
        root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "trivet-test", root], check=True)
        undo.callback(_unmount, root)
        engine = Daemon(root, run)
        undo.callback(engine.clean)
        engine.start()
        engine.ok("import", "-q", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
        yield engine


@pytest.fixture
def full(tmp_path: Path) -> Iterator[str]:
    """A registry whose root is a file system of 24 MiB."""
    root = tmp_path / "served"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "trivet-test", root], check=True)
    try:
        with trivet_registry(root) as registry:
            yield registry
    finally:
        _unmount(root)


def _unmount(path: Path) -> None:
    subprocess.run(["umount", "-l", path], check=True)


def _files(root: Path) -> set[Path]:
    """List what takes space, except the records, which may grow, and their reserve, which a full disk is given."""
    return {path for path in root.rglob("*") if path.is_file() and not path.name.startswith("record.")}


def _incompressible(size: int) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        entry = tarfile.TarInfo("noise")
        entry.size = size
        tar.addfile(entry, io.BytesIO(os.urandom(size)))
    return output.getvalue()


@pytest.mark.parametrize("size", [SIZE // 2, 2 * SIZE], ids=["while storing", "while receiving"])
def test_an_image_that_does_not_fit_leaves_nothing(cramped: Daemon, size: int) -> None:
    """It fails with exit code 1 and one sentence, and the space is free again."""
    before = _files(cramped.root)
    done = cramped.trivet("import", "-q", "-", "big:1", input=_incompressible(size))
    complaint = done.stderr.decode()
    assert done.returncode == 1, complaint
    assert "no space left" in complaint
    assert "Traceback" not in complaint
    assert _files(cramped.root) == before
    assert cramped.ok("run", "--rm", IMAGE, "echo", "fine") == "fine"


@pytest.mark.parametrize("size", [SIZE // 2, 2 * SIZE], ids=["while unpacking", "while downloading"])
def test_a_pull_that_does_not_fit_leaves_nothing(cramped: Daemon, tmp_path: Path, size: int) -> None:
    """It fails with exit code 1 and one sentence, the space is free again, and there is nothing for a check to find."""
    resize: list[str | Path] = ["mount", "-o", "remount,size=200m", cramped.root]
    with trivet_registry(tmp_path / "served") as registry:
        name = f"{registry}/big:1"
        subprocess.run(resize, check=True)
        cramped.ok("import", "-q", "-", name, input=_incompressible(size))
        cramped.ok("push", "-q", name)
        cramped.ok("rmi", name)
        subprocess.run(["mount", "-o", f"remount,size={SIZE}", cramped.root], check=True)
        before = _files(cramped.root)
        done = cramped.trivet("pull", "-q", name)
        assert done.returncode == 1
        assert b"no space left" in done.stderr
        assert b"Traceback" not in done.stderr
        assert _files(cramped.root) == before
        assert cramped.client.system.check() == []
        subprocess.run(resize, check=True)
        cramped.ok("pull", "-q", name)


def test_a_pull_takes_hardly_more_room_than_what_stays(cramped: Daemon, tmp_path: Path) -> None:
    """An image of 120 MB is pulled where there is room for its layers and files and 32 MB more, no third copy."""

    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", cramped.root], check=True)

    def taken() -> int:
        state = os.statvfs(cramped.root)
        return (state.f_blocks - state.f_bfree) * state.f_frsize

    resize(600 << 20)
    with trivet_registry(tmp_path / "served") as registry:
        name = f"{registry}/large:1"
        cramped.ok("import", "-q", "-", name, input=_incompressible(120 << 20))
        cramped.ok("push", "-q", name)
        cramped.ok("rmi", name)
        before = taken()
        cramped.ok("pull", "-q", name)
        final = taken()
        assert final - before > 240 << 20
        cramped.ok("rmi", name)
        assert taken() < before + (1 << 20)
        resize(final + (32 << 20))
        cramped.ok("pull", "-q", name)


def test_a_full_registry_says_so_and_keeps_nothing_half(full: str, victim: Daemon) -> None:
    """What it has no room for is refused in a sentence and gone, however it is continued; the rest is whole."""
    small, big = f"{full}/small:1", f"{full}/big:1"
    victim.ok("tag", IMAGE, small)
    victim.ok("import", "-q", "-", big, input=_incompressible(2 * SIZE))
    victim.ok("push", "-q", small)
    done = victim.trivet("push", "-q", big)
    assert (done.returncode, done.stderr.count(b"the registry's disk is full")) == (1, 1), done.stderr
    pieces = [os.urandom(SIZE // 2)] * 2 + [b"end"]
    where = _asked(full, "POST", "/v2/raw/blobs/uploads/", b"")[1]
    assert _asked(full, "PATCH", where, pieces[0])[0] == 202
    assert _asked(full, "PATCH", where, pieces[1])[0] == 507
    digest = digests.of(b"".join(pieces))
    assert _asked(full, "PUT", f"{where}?digest={digest}", pieces[2])[0] == 404
    assert _asked(full, "HEAD", f"/v2/raw/blobs/{digest}")[0] == 404
    victim.ok("rmi", small)
    assert victim.ok("run", "--rm", "--network", "none", small, "echo", "fine") == "fine"


def _asked(registry: str, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    """Send a request; tell status and Location."""
    with closing(http.client.HTTPConnection(registry, timeout=60)) as connection:
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers.get("Location", "")


def test_a_full_disk_stops_neither_the_program_nor_its_output(cramped: Daemon) -> None:
    """Output that can't be logged is still delivered; the exit code is kept."""
    script = "dd if=/dev/urandom of=/filler bs=1M count=100 2>/dev/null; seq 1 5000; exit 3"
    done = cramped.trivet("run", "--name", "full", IMAGE, "sh", "-c", script)
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines()[-1] == b"5000"
    cramped.ok("rm", "full")
    assert cramped.ok("run", "--rm", IMAGE, "echo", "fine") == "fine"


@pytest.mark.vm
def test_a_machine_waits_for_room_on_the_hosts_disk(cramped: Daemon) -> None:
    """It stands still instead of losing data, says why, and goes on when there is room and somebody says so."""
    cramped.ok("run", "-d", "--isolation", "vm", "--name", "full", IMAGE, "sh", "-c", "sleep 600")
    words = ["exec", "full", "sh", "-c", "dd if=/dev/urandom of=/filler bs=1M count=40 && sync && wc -c < /filler"]
    environment = {**os.environ, "TRIVET_HOST": cramped.address}
    command = [str(BIN / "trivet"), *words]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writing:
        deadline = time.monotonic() + 60
        while (found := cramped.client.instances.get("full")).status != "paused":
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        assert found.error.startswith("no space left on the host's disk for ")
        subprocess.run(["mount", "-o", "remount,size=200m", cramped.root], check=True)
        cramped.ok("unpause", "full")
        output, _ = writing.communicate(timeout=60)
    assert output.strip() == str(40 << 20).encode()
    found = cramped.client.instances.get("full")
    assert (found.status, found.error) == ("running", "")


@pytest.mark.vm
@pytest.mark.needs(*NEEDS)
def test_a_machine_of_its_own_waits_for_room_too(cramped: Daemon, tmp_path: Path) -> None:
    """So does one with a system of its own, whose disk is thin: it goes on with nothing lost."""
    kernel, system = initrd(tmp_path / "initrd")
    options = [
        "--kernel",
        str(kernel),
        "--initrd",
        str(system),
        "--append",
        PARAMETERS,
        "--network",
        "none",
        "--no-cloud-init",
    ]
    cramped.ok("vm", "create", "thin", *options, "--memory", "256m", "--disk", "256m", "--start")
    said(cramped, "thin", "tiny# ")
    with console(cramped, "thin") as typed:
        typed.write(b"\ndd if=/dev/zero of=/dev/vda bs=1M count=40 conv=fsync; echo wro''te $?\n")
        typed.flush()
        deadline = time.monotonic() + PATIENCE
        while (found := cramped.client.instances.get("thin")).status != "paused":
            assert time.monotonic() < deadline, cramped.ok("logs", "thin")[-1000:]
            time.sleep(0.2)
        assert found.error.startswith("no space left on the host's disk for ")
        subprocess.run(["mount", "-o", "remount,size=200m", cramped.root], check=True)
        cramped.ok("unpause", "thin")
        said(cramped, "thin", "wrote 0")


def _fill(root: Path) -> Path:
    """Take all the room that is left, to the last page."""
    filler = root / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 65536)
    return filler


def _grow(engine: Daemon) -> None:
    """Use up what is already allocated to records as well."""
    for number in range(200):
        engine.client.volumes.create(VolumeRequest(labels={"x": f"{number}" * 100000}))


def test_no_room_for_records(cramped: Daemon) -> None:
    """What would add to an engine's state fails by name, all else goes on, by an engine started meanwhile as well."""
    cramped.ok("run", "-d", "--name", "kept", IMAGE, "sleep", "1000")
    cramped.ok("create", "--name", "waits", IMAGE, "true")
    for again in (False, True):
        if again:
            cramped.kill()
            cramped.start()
        filler = _fill(cramped.root)
        with pytest.raises(TrivetError, match="no space left"):
            _grow(cramped)
        for words in (("create", IMAGE), ("network", "create", f"net{again}"), ("commit", "kept", f"copy:{again}")):
            done = cramped.trivet(*words)
            assert done.returncode == 0 or b"no space left" in done.stderr, done.stderr
        assert "kept" in cramped.ok("ps")
        assert cramped.ok("exec", "kept", "echo", "fine") == "fine"
        cramped.ok("stop", "-t", "0", "kept")
        cramped.ok("volume", "prune", "-af")
        filler.unlink()
        cramped.ok("start", "kept")
    assert cramped.client.system.check() == []
    cramped.ok("start", "-a", "waits")
    cramped.ok("network", "create", "last")


def test_removing_makes_room(cramped: Daemon) -> None:
    """On a full disk instances and images can be removed: that is how there will be room."""
    cramped.ok("run", "--name", "big", IMAGE, "sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=4 2>/dev/null")
    filler = _fill(cramped.root)
    cramped.ok("rm", "big")
    cramped.ok("rmi", IMAGE)
    filler.unlink()
    assert cramped.client.instances.list(all=True) == []
    assert cramped.client.system.check() == []


def _insert(table: Table[str], number: int) -> None:
    for each in range(number):
        table.insert(f"{each:04}", "x" * 20000)


def _insert_at_once(records: Records, table: Table[str]) -> None:
    with records.transaction():
        for number in range(10):
            table.insert(f"more{number}", "x" * 20000)


def test_records_on_a_full_disk(tmp_path: Path) -> None:
    """Nothing can be added, alone or in a transaction; what is there is changed and deleted out of the reserve."""
    with ExitStack() as undo:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={RESERVE + (4 << 20)}", "trivet-test", tmp_path], check=True
        )
        undo.callback(_unmount, tmp_path)
        records = Records(tmp_path / "record.db")
        undo.callback(records.close)
        table = records.table("thing", str)
        with pytest.raises(Exhausted, match="no space left on the disk of"):
            _insert(table, 1000)
        added, reserve = len(table.all()), tmp_path / "record.reserve"
        with pytest.raises(Exhausted):
            _insert_at_once(records, table)
        assert (len(table.all()), reserve.exists()) == (added, True)
        with records.transaction():
            table.update("0000", "changed")
            for number in range(1, 20):
                table.update(f"{number:04}", "y" * 20000)
        assert (table.get("0000"), reserve.exists()) == ("changed", False)
        for number in range(added):
            assert table.delete(f"{number:04}")
        assert table.all() == records.problems() == []
