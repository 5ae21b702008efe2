"""Hostile contexts and images, builds that are cut short, builds beside one another (SECURITY rows 25, 34, 37-40)."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from tests.build.workshop import Content, Workshop, make_tar

from trivet.base.error import TrivetError
from trivet.build.error import BuildError

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file of the host that nobody may read or change."""
    path = tmp_path / "canary"
    path.write_text("secret of the host")
    return path


def test_links_in_the_context(workshop: Workshop, canary: Path) -> None:
    """A link in the context leads nowhere but in it; below a copied directory it stays a link."""
    files: dict[str, Content] = {"out": str(canary), "up": "../../../.." + str(canary), "d/link": str(canary)}
    for name in ("out", "up", "d/link"):
        with pytest.raises(BuildError, match="no "):
            workshop.build(f"FROM base\nCOPY {name} /x", files)
    built = workshop.build("FROM base\nCOPY d /d/", files)
    assert built.files["d/link"].info.issym()


def test_dockerfile_is_a_link(workshop: Workshop, canary: Path) -> None:
    """A Dockerfile that is a link to the host isn't there."""
    with pytest.raises(BuildError, match="has no Evil"):
        workshop.build("FROM base", {"Evil": str(canary)}, file="Evil")


@pytest.mark.parametrize("name", ["etc", "dev", "proc", "etc/hosts", "etc/resolv.conf"])
def test_image_with_links_to_the_host(workshop: Workshop, canary: Path, name: str) -> None:
    """An image whose mount targets are links to the host's files changes nothing there, in RUN and in COPY."""
    before = sorted(canary.parent.iterdir())
    target = str(canary if "." in name or name.endswith("hosts") else canary.parent)
    trap = f"FROM base\nRUN rm -rf /{name}; ln -s {target} /{name}\n"
    dockerfile = f"{trap}RUN echo x; echo overwritten > {canary}\nCOPY f /{name}"
    try:
        workshop.build(dockerfile, {"f": b"overwritten"})
    except TrivetError:
        pass
    assert canary.read_text() == "secret of the host"
    assert sorted(canary.parent.iterdir()) == before
    assert workshop.leftovers() == []


def test_copy_through_links_of_the_image(workshop: Workshop, canary: Path) -> None:
    """Copying to a path below a link of the image ends inside the image."""
    dockerfile = f"FROM base\nRUN ln -s {canary.parent} /out; ln -s ../../../../.. /up\nCOPY f /out/\nCOPY f /up/g"
    built = workshop.build(dockerfile, {"f": b"inside"})
    assert built.files[str(canary.parent).lstrip("/") + "/f"].content == b"inside"
    assert built.files["g"].content == b"inside"
    assert not (canary.parent / "f").exists()
    assert not Path("/g").exists()


def test_copy_from_an_image_of_links(workshop: Workshop, canary: Path) -> None:
    """Copying out of a stage whose paths are links to the host reads nothing of the host."""
    dockerfile = f"FROM base AS evil\nRUN ln -s / /root2; ln -s {canary} /link\nFROM scratch\nCOPY --from=evil {{}} /x"
    for source in ("/link", f"/root2{canary}", "/proc/self/root/etc/hostname"):
        with pytest.raises(BuildError, match="no /"):
            workshop.build(dockerfile.format(source))


def test_archive_that_wants_out(workshop: Workshop) -> None:
    """ADD of an archive with dots, absolute names and links stays below its target."""
    entries: dict[str, Content] = {"../../../../tmp/trivet-escaped": b"1", "/tmp/trivet-escaped": b"2", "l": "/tmp"}
    entries["l/trivet-escaped"] = b"3"
    built = workshop.build("FROM base\nADD a.tar /deep/er/", {"a.tar": make_tar(entries)})
    assert built.files["deep/er/tmp/trivet-escaped"].content == b"3"
    assert not Path("/tmp/trivet-escaped").exists()


def test_device_in_the_context(workshop: Workshop) -> None:
    """A device in the context is refused."""
    device = tarfile.TarInfo("sda")
    device.type, device.devmajor = tarfile.BLKTYPE, 8
    with pytest.raises(BuildError, match="sda"):
        workshop.build("FROM base\nCOPY sda /", {"sda": device})


def test_hostile_passwd(workshop: Workshop) -> None:
    """--chown with a user list that is a FIFO, a link to the host or gigantic ends soon and reads nothing."""
    for prepare in (
        "busybox mkfifo /etc/passwd",
        "ln -s /proc/kmsg /etc/passwd",
        "dd if=/dev/zero of=/etc/passwd bs=1M count=8",
    ):
        with pytest.raises(BuildError, match="no user 'app'"):
            workshop.build(f"FROM base\nRUN rm /etc/passwd; {prepare}\nCOPY --chown=app f /", {"f": b""})


def test_privileges_are_not_for_the_asking(workshop: Workshop) -> None:
    """A step has an ordinary container's rights: no mounts, no raw devices, no host namespaces."""
    built = workshop.build(
        "FROM base\nRUN mount -t tmpfs x /tmp 2>&1; busybox mknod /d b 8 0 && dd if=/d count=1 2>&1; true"
    )
    assert "not permitted" in built.output
    with pytest.raises(BuildError, match="not granted"):
        workshop.build("FROM base\nRUN --security=insecure true")


def test_cancelled_build(workshop: Workshop) -> None:
    """A build whose client goes away stops at once and leaves nothing."""

    async def cancelled() -> float:
        task = asyncio.create_task(workshop.building("FROM base\nRUN echo started; sleep 60", tags=["cancelled"]))
        await asyncio.sleep(1.0)
        begin = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - begin

    assert asyncio.run(cancelled()) < 5
    assert workshop.leftovers() == []


def test_builds_beside_one_another(workshop: Workshop) -> None:
    """Builds that run at the same time don't see one another, also when they do the same."""

    async def together() -> list[bytes]:
        names = ["a", "b", "c", "same", "same"]
        builds = [
            workshop.building(f"FROM base\nCOPY f /\nRUN cat /f > /out; echo {name} >> /out", {"f": name.encode()})
            for name in names
        ]
        return [built.files["out"].content for built in await asyncio.gather(*builds)]

    assert asyncio.run(together()) == [b"aa\n", b"bb\n", b"cc\n", b"samesame\n", b"samesame\n"]
    assert workshop.leftovers() == []


KILLED = """
import sys
from pathlib import Path
from tests.build.workshop import Workshop
workshop = Workshop(Path(sys.argv[1]), Path(sys.argv[2]))
print(workshop.cgroup, flush=True)
workshop.build("FROM base\\nCOPY Dockerfile /\\nRUN echo running; sleep 60")
"""


def test_killed_build(tmp_path: Path, short_path: Path) -> None:
    """An engine that is killed in the middle of a step leaves nothing that the next one doesn't remove."""
    repository = Path(__file__).parents[2]
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(short_path)]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        group = child.stdout.readline().strip()
        assert group
        deadline = time.monotonic() + 20
        while not list((short_path / "b").glob("*/pid")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        child.send_signal(signal.SIGKILL)
    workshop = Workshop(tmp_path, short_path)
    try:
        workshop.cgroup = group
        assert workshop.leftovers()
        builder = workshop.make_builder()
        workshop.images.leases.reset()
        builder.cleanup()
        assert workshop.leftovers() == []
    finally:
        workshop.close()
