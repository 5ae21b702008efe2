"""What volumes are kept in: sizes that hold, owners, other file systems; and parts of volumes and images as mounts."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Daemon

from trivet.kernel import capability

pytestmark = pytest.mark.needs("root")


class Disks:
    """An engine with an image; volumes and instances of a test are removed after it."""

    def __init__(self, daemon: Daemon, image: str) -> None:
        self.daemon, self.image = daemon, image
        self.instances: list[str] = []
        self.volumes: list[str] = []

    def volume(self, name: str, *options: str) -> Path:
        """Create a volume; where it is."""
        self.volumes.append(name)
        words = [word for option in options for word in ("-o", option)]
        self.daemon.ok("volume", "create", *words, name)
        return Path(json.loads(self.daemon.ok("volume", "inspect", name))[0]["mountpoint"])

    def run(self, *words: str, script: str) -> str:
        """Run a shell script in an instance; what it printed, also when it failed."""
        done = self.daemon.trivet("run", "--rm", *words, self.image, "sh", "-c", script, timeout=240)
        return (done.stdout + done.stderr).decode().strip()

    def start(self, name: str, *words: str) -> None:
        """Start an instance that waits."""
        self.instances.append(name)
        self.daemon.ok("run", "-d", "--name", name, *words, self.image, "sleep", "300", timeout=240)

    def sh(self, name: str, script: str) -> str:
        """Run a shell in it."""
        done = self.daemon.trivet("exec", name, "sh", "-c", script)
        return (done.stdout + done.stderr).decode().strip()

    def refused(self, *words: str) -> str:
        """What a command that must fail says."""
        done = self.daemon.trivet(*words)
        assert done.returncode, words
        return done.stderr.decode()


@pytest.fixture
def disks(daemon: Daemon, busybox: str) -> Iterator[Disks]:
    """Volumes of a test."""
    made = Disks(daemon, busybox)
    yield made
    for name in made.instances:
        daemon.trivet("rm", "-f", "-v", name)
    for name in made.volumes:
        daemon.trivet("volume", "rm", "-f", name)


FILL = "dd if=/dev/zero of=/v/big bs=1M count=64 2>&1 | tail -1; stat -c %s /v/big"


def test_a_size_holds_and_grows(disks: Disks) -> None:
    """A volume with a size takes no more than that, until it is made larger."""
    place = disks.volume("sized", "size=16m")
    disks.start("sized", "-v", "sized:/v")
    shown = disks.sh("sized", FILL)
    assert "No space left" in disks.sh("sized", "echo x >>/v/more; dd if=/dev/zero of=/v/more bs=1M count=9")
    before = int(shown.splitlines()[-1])
    assert 8 << 20 < before < 16 << 20
    if capability.has("CAP_SYS_RESOURCE"):
        disks.daemon.ok("volume", "resize", "sized", "48m")
    else:
        assert "lacks CAP_SYS_RESOURCE" in disks.refused("volume", "resize", "sized", "48m")
        disks.daemon.ok("stop", "-t", "0", "sized")
        disks.daemon.ok("volume", "resize", "sized", "48m")
        disks.daemon.ok("start", "sized")
    assert int(disks.sh("sized", FILL).splitlines()[-1]) > before + (16 << 20)
    assert "cannot shrink" in disks.refused("volume", "resize", "sized", "8m")
    (entry,) = json.loads(disks.daemon.ok("volume", "inspect", "sized"))
    assert entry["options"] == {"size": str(48 << 20)}
    disks.volume("sized", "size=16m")  # what an application asks for again
    disks.daemon.ok("rm", "-f", "sized")
    disks.daemon.ok("volume", "rm", "sized")
    assert not place.exists()
    assert "sized" not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.vm
def test_a_size_holds_for_machines(disks: Disks) -> None:
    """A machine and a process meet the same limit."""
    disks.volume("sized-vm", "size=12m")
    for level in ("vm", "process"):
        shown = disks.run("--isolation", level, "-v", "sized-vm:/v", script=f"{FILL}; rm /v/big")
        assert int(re.findall(r"^[0-9]{7,}$", shown, re.MULTILINE)[-1]) < 12 << 20, shown


def test_a_sized_volume_is_a_volume(disks: Disks) -> None:
    """It is filled from the image, snapshot and rolled back, renamed, and there again after the engine and a reboot."""
    place = disks.volume("whole", "size=16m")
    disks.run("-v", "whole:/v", script="echo one >/v/a")
    disks.daemon.ok("volume", "snapshot", "whole@one")
    disks.run("-v", "whole:/v", script="echo two >/v/a; echo more >/v/b")
    disks.daemon.ok("volume", "rollback", "whole@one")
    assert disks.run("-v", "whole:/v", script="cat /v/*") == "one"
    disks.daemon.ok("volume", "rm", "whole@one")
    disks.daemon.ok("volume", "rename", "whole", "whole-new")
    disks.volumes.append("whole-new")
    assert disks.run("-v", "whole-new:/v", script="cat /v/*; df -m /v | tail -1").startswith("one")
    moved = place.parents[2] / "whole-new" / "drive"
    subprocess.run(["umount", moved], check=True)  # as after a reboot
    disks.daemon.kill()
    disks.daemon.start()
    assert disks.run("-v", "whole-new:/v", script="cat /v/a") == "one"
    assert os.path.ismount(moved)


def test_owner_and_mode(disks: Disks) -> None:
    """A volume's directory has the owner and mode that were asked for, also when an image's content comes into it."""
    disks.volume("owned", "o=uid=1000,gid=2000,mode=0750")
    assert disks.run("-v", "owned:/v", script="stat -c '%u %g %a' /v") == "1000 2000 750"
    disks.volume("owned-etc", "o=uid=1000", "size=4m")
    shown = disks.run("-v", "owned-etc:/etc", script="stat -c %u /etc; ls /etc | wc -l")
    assert shown.splitlines()[0] == "1000"


def test_other_file_systems(disks: Disks) -> None:
    """A tmpfs is a volume in memory with its own options; what this kernel lacks is refused by name."""
    disks.volume("memory", "type=tmpfs", "device=tmpfs", "o=size=2m,mode=700,noexec")
    disks.start("memory", "-v", "memory:/v")
    assert "tmpfs" in disks.sh("memory", "stat -f -c %T /v; grep ' /v ' /proc/mounts")
    assert "No space left" in disks.sh("memory", "dd if=/dev/zero of=/v/big bs=1M count=4")
    assert "tmpfs refuses the options" in disks.refused(
        "volume", "create", "-o", "type=tmpfs", "-o", "o=colour=red", "no"
    )
    for kind, said in (("nfs", "this kernel has no nfs"), ("btrfs", "file system btrfs is not supported")):
        if kind in Path("/proc/filesystems").read_text().split() and kind == "nfs":
            continue
        words = ("-o", f"type={kind}", "-o", "device=:/x", "-o", "o=addr=127.0.0.1")
        assert said in disks.refused("volume", "create", *words, "no")
    for option in ("size=lots", "size=1k", "colour=red", "o=uid=x", "o=mode=9", "o=colour=red"):
        assert "no" in disks.refused("volume", "create", "-o", option, "no")
    assert "no" not in disks.daemon.ok("volume", "ls", "-q").split()


def test_part_of_a_volume(disks: Disks, daemon: Daemon) -> None:
    """A sub-path is shown alone, and stays what it is when the volume's links are changed behind its back."""
    place = disks.volume("parts")
    for path in ("a/b", "a/c"):
        (place / path).mkdir(parents=True)
    (place / "a/b/word").write_text("inside")
    (place / "a/file").write_text("a file")
    part = "type=volume,src=parts,dst=/v,volume-subpath="
    disks.start("parts", "--mount", f"{part}a/b", "--mount", "type=volume,src=parts,dst=/etc/one,volume-subpath=a/file")
    assert disks.sh("parts", "cat /v/word /etc/one; ls /v; echo more >/v/new") == "insidea fileword"
    assert (place / "a/b/new").read_text() == "more\n"
    (shown,) = [each for each in json.loads(daemon.ok("inspect", "parts"))[0]["mounts"] if each["target"] == "/v"]
    assert (shown["source"], shown["subpath"]) == (str(place), "a/b")
    staged = daemon.run / "m"
    assert len(list(staged.glob("*/*"))) == 2
    (place / "a/b").rename(place / "a/old")
    (place / "a/b").symlink_to("c")
    daemon.ok("restart", "-t", "0", "parts")
    assert disks.sh("parts", "ls /v") == ""
    daemon.kill()
    daemon.start()
    assert disks.sh("parts", "ls /v; cat /etc/one") == "a file"
    daemon.ok("rm", "-f", "parts")
    assert list(staged.iterdir()) == []
    assert (place / "a/old/word").read_text() == "inside"


def test_no_sub_path_leads_out(disks: Disks) -> None:
    """Links of a volume, absolute or upward, end inside of it; what isn't there is refused by name."""
    place = disks.volume("trap")
    (place / "etc").mkdir()
    (place / "etc/hostname").write_text("the volume's own")
    (place / "up").symlink_to("../../../../../../../../etc")
    (place / "absolute").symlink_to("/etc")
    (place / "magic").symlink_to("/proc/1/root")
    part = "type=volume,src=trap,dst=/v,volume-subpath="
    for path in ("up", "absolute", "../../../../etc", "/etc"):
        assert disks.run("--mount", f"{part}{path}", script="cat /v/hostname") == "the volume's own", path
    for path in ("magic", "nothing", "etc/hostname/x"):
        assert f"cannot mount {path} of volume trap" in disks.refused(
            "run", "--rm", "--mount", f"{part}{path}", disks.image
        )
    assert "has no sub-path" in disks.refused(
        "run", "--rm", "--mount", f"type=bind,src=/tmp,dst=/v,{part[-15:]}x", disks.image
    )


@pytest.mark.vm
def test_parts_at_every_level(disks: Disks) -> None:
    """A process and a machine see the same part of a volume, and an image."""
    place = disks.volume("levels")
    (place / "sub").mkdir()
    (place / "sub/word").write_text("word")
    mounts = ("--mount", "type=volume,src=levels,dst=/v,volume-subpath=sub", "--mount")
    image = f"type=image,src={disks.image},dst=/i,image-subpath=bin"
    for level in ("process", "vm"):
        shown = disks.run("--isolation", level, *mounts, image, script="cat /v/word; echo; ls /i/busybox; touch /i/x")
        assert "word\n/i/busybox" in shown, level
        assert "Read-only file system" in shown, level


def test_image_mount(disks: Disks) -> None:
    """An image is a read-only mount, or with rw a copy that goes with the instance; it can't be removed meanwhile."""
    other = "busybox:mounted"
    disks.daemon.ok("tag", disks.image, "busybox:from")
    disks.daemon.ok(
        "build", "-q", "-t", other, "-", input=b"FROM busybox:from\nRUN mkdir /only && echo here >/only/word\n"
    )
    disks.start("viewer", "--mount", f"type=image,src={other},dst=/i", "--mount", f"type=image,src={other},dst=/w,rw")
    assert disks.sh("viewer", "cat /i/only/word; stat -c %u /i/only; touch /i/x").splitlines() == [
        "here",
        "0",
        "touch: /i/x: Read-only file system",
    ]
    assert disks.sh("viewer", "echo changed >/w/only/word; cat /w/only/word /i/only/word") == "changed\nhere"
    kinds = {each["target"]: each["kind"] for each in json.loads(disks.daemon.ok("inspect", "viewer"))[0]["mounts"]}
    assert kinds == {"/i": "image", "/w": "image"}
    assert "viewer" in disks.refused("rmi", other)
    before = len(disks.daemon.ok("volume", "ls", "-q").splitlines())
    disks.daemon.ok("rm", "-f", "-v", "viewer")
    assert len(disks.daemon.ok("volume", "ls", "-q").splitlines()) == before - 1
    disks.daemon.ok("rmi", other)
    assert "no such image" in disks.refused("run", "--rm", "--mount", "type=image,src=nowhere,dst=/i", disks.image)


def test_what_is_mounted_below(disks: Disks, tmp_path: Path) -> None:
    """Mounts below a bind are shown, read-only with it unless told otherwise, and follow the host with rslave."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        subprocess.run(["mount", "--make-shared", tmp_path], check=True)
        (tmp_path / "below").mkdir()
        (tmp_path / "later").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "below"], check=True)
        (tmp_path / "below/word").write_text("word")
        bind = f"type=bind,src={tmp_path},dst=/v"
        script = "ls /v/below; touch /v/below/new 2>/dev/null && echo written; touch /v/new 2>/dev/null && echo both"
        for words, shown in (
            (",ro", "word"),
            (",ro,bind-recursive=disabled", ""),
            (",ro,bind-recursive=writable", "word\nwritten"),
            ("", "new\nword\nwritten\nboth"),
        ):
            assert disks.run("--mount", bind + words, script=script) == shown, words
        disks.start("follow", "--mount", f"{bind},bind-propagation=rslave")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "later"], check=True)
        (tmp_path / "later/word").write_text("later")
        assert disks.sh("follow", "cat /v/later/word") == "later"
    finally:
        disks.daemon.trivet("rm", "-f", "follow")
        subprocess.run(["umount", "-R", tmp_path], check=True)


def test_tmpfs_owner(disks: Disks) -> None:
    """A tmpfs belongs to whom it is said to."""
    assert disks.run("--tmpfs", "/t:uid=1000,gid=2000,mode=700", script="stat -c '%u %g %a' /t") == "1000 2000 700"


def test_volume_made_by_its_mount(disks: Disks) -> None:
    """A mount makes a volume that isn't there with the options it gives."""
    disks.volumes.append("by-mount")
    mount = "type=volume,src=by-mount,dst=/v,volume-opt=size=8m,volume-label=who=me"
    assert int(disks.run("--mount", mount, script="df -k /v | tail -1").split()[1]) < 8 << 10
    (made,) = json.loads(disks.daemon.ok("volume", "inspect", "by-mount"))
    assert (made["options"], made["labels"]) == ({"size": "8m"}, {"who": "me"})


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--user", "user"),
        ("--user", "5000:5000"),
        ("--userns", "host"),
        ("--isolation", "process"),
        ("--isolation", "vm", "--user", "user"),
    ],
    ids="-".join,
)
def test_a_bind_mount_is_mine(disks: Disks, tmp_path: Path, words: tuple[str, ...]) -> None:
    """What the instance's user makes in it is the directory's owner's on the host, and his files are the user's."""
    for path in (tmp_path, tmp_path / "below"):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)
    for path in (tmp_path / "file", tmp_path / "below/file", tmp_path / "others", tmp_path):
        path.touch()
        os.chown(path, 1234, 1235)
    os.chown(tmp_path / "others", 77, 78)
    script = "stat -c %u:%g /v /v/file /v/below/file; echo $(id -u):$(id -g); stat -c %u:%g /v/others; echo >/v/new"
    *owners, own, others = disks.run(*words, "-v", f"{tmp_path}:/v:mine", script=script).splitlines()[:5]
    assert owners == [own] * 3
    assert others == "77:78"
    status = (tmp_path / "new").stat()
    assert (status.st_uid, status.st_gid) == (1234, 1235)


def test_what_cannot_be_mine(disks: Disks, tmp_path: Path) -> None:
    """A volume has no owner on the host, a stranger no number, and some file systems show no other owners."""
    run = ("run", "--rm")
    assert "only a directory of the host" in disks.refused(*run, "-v", "nobodys:/v:mine", disks.image)
    assert "'stranger' is not in the image" in disks.refused(
        *run, "--user", "stranger", "-v", f"{tmp_path}:/v:mine", disks.image
    )
    assert "map the owners of /proc" in disks.refused(*run, "-v", "/proc/sys:/v:mine", disks.image)
