"""Engines that keep images in other ways than overlays of unpacked layers: what users see is the same."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.fault.conftest import IMAGE


@pytest.fixture(params=["erofs", "copy"])
def other(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A running engine with another snapshotter, and an image."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        engine = Daemon(tmp_path / "root", run, f"--snapshotter={request.param}")
        undo.callback(engine.clean)
        engine.start()
        engine.ok("import", "-q", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
        yield engine


def _mounts(engine: Daemon) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(str(engine.root))]


@pytest.mark.parametrize(
    "options",
    [(), ("--userns", "host"), ("--read-only",), ("--isolation", "process")],
    ids=["mapped", "host", "read-only", "process"],
)
def test_an_image_runs(other: Daemon, options: tuple[str, ...]) -> None:
    """Root owns what is in the image, at every level that shares the host's kernel, whoever root is."""
    script = "stat -c %u:%g /bin/busybox; echo mine >/tmp/x 2>&1; cat /tmp/x"
    shown = other.ok("run", "--rm", "--tmpfs", "/tmp", *options, IMAGE, "sh", "-c", script)
    assert shown.split() == ["0:0", "mine"]


@pytest.mark.vm
def test_an_image_is_a_machines_drive(other: Daemon) -> None:
    """A machine boots from it; a lone EROFS layer isn't stored a second time for that."""
    assert other.ok("run", "--rm", "--isolation", "vm", IMAGE, "stat", "-c", "%u:%g", "/bin/busybox") == "0:0"
    drives = [path.stat().st_nlink for path in other.root.glob("snapshot/drive/image/*.erofs")]
    assert drives == [2 if "erofs" in other.options[0] else 1]


@pytest.mark.vm
def test_layers_from_elsewhere_are_one_drive(other: Daemon, tmp_path: Path) -> None:
    """An image of several layers that came as such boots as a machine: the upper ones replace and delete."""
    if "copy" in other.options[0]:
        return
    (tmp_path / "Dockerfile").write_text(
        f"FROM {IMAGE}\nRUN echo one >/one && rm /bin/vi\nRUN echo two >/two; rm /one\n"
    )
    other.ok("build", "-q", "-t", "many:1", str(tmp_path))
    saved = other.trivet("save", "many:1").stdout
    other.ok("builder", "prune", "-f")
    other.ok("rmi", "many:1", IMAGE)
    other.ok("load", "-q", input=saved)
    script = "cat /two; ls /one /bin/vi 2>/dev/null || echo gone; sha256sum /bin/busybox"
    shown = [
        other.ok("run", "--rm", "--isolation", level, "many:1", "sh", "-c", script) for level in ("vm", "container")
    ]
    assert shown[0] == shown[1]
    assert shown[0].split()[:2] == ["two", "gone"]
    assert len(_mounts(other)) == 1


def test_what_was_changed_is_found_and_committed(other: Daemon) -> None:
    """diff, commit, export and cp see what was written, changed and deleted; the new image has it."""
    script = "echo new >/new; rm /bin/vi; mkdir /d; echo x >>/etc/passwd; ln /new /d/new"
    other.ok("run", "--name", "one", IMAGE, "sh", "-c", script)
    found = {path: kind for kind, path in (line.split(maxsplit=1) for line in other.ok("diff", "one").splitlines())}
    assert {"/new": "A", "/d": "A", "/d/new": "A", "/bin/vi": "D", "/etc/passwd": "C"}.items() <= found.items()
    other.ok("commit", "one", "two:1")
    shown = other.ok("run", "--rm", "two:1", "sh", "-c", "cat /d/new; stat -c %h /new; ls /bin/vi || echo gone")
    assert shown.split() == ["new", "2", "gone"]
    done = other.trivet("export", "one")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        names = archive.getnames()
    assert "new" in names
    assert "bin/vi" not in names
    assert not any(".wh." in name for name in names)


def test_instances_outlive_the_host(other: Daemon) -> None:
    """After a start of the host, when nothing is mounted any more, an instance starts with what it had."""
    other.ok("create", "--name", "one", IMAGE, "sh", "-c", "cat /kept 2>/dev/null; echo kept >/kept")
    assert other.ok("start", "-a", "one") == ""
    other.kill()
    for place in _mounts(other):
        subprocess.run(["umount", "-l", place], check=True)
    other.start()
    assert other.ok("start", "-a", "one") == "kept"


def test_removing_the_image_unmounts_it(other: Daemon) -> None:
    """Nothing is left of an image that was removed, and an engine's end leaves no mount."""
    other.ok("run", "-d", "--name", "one", IMAGE, "sleep", "1000")
    assert bool(_mounts(other)) == ("erofs" in other.options[0])
    other.kill()
    other.start()
    other.ok("rm", "-f", "one")
    other.ok("rmi", IMAGE)
    assert _mounts(other) == []
    assert [path.name for path in other.root.glob("snapshot/overlay/layer/*")] == ["empty"]


def test_builds(other: Daemon) -> None:
    """Images are built where there are overlays, and refused by name where there are none."""
    context = io.BytesIO()
    text = f"FROM {IMAGE}\nRUN echo one >/one && rm /bin/vi\nCOPY Dockerfile /file\nRUN cat /one /file >/two\n".encode()
    with tarfile.open(fileobj=context, mode="w") as archive:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    done = other.trivet("build", "-t", "built:1", "-", input=context.getvalue())
    if "copy" in other.options[0]:
        assert b"cannot build with the snapshotter copy" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert other.ok("run", "--rm", "built:1", "head", "-n1", "/two") == "one"
    assert other.client.system.info().snapshotter == "erofs"
