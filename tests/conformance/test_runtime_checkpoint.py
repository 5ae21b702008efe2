"""`trivet-runtime checkpoint` and `restore`, with a real CRIU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tests.criu import criu as criu
from tests.native import compiled
from tests.runtime import Runtime, until

pytestmark = [pytest.mark.needs("root", "musl-gcc")]
INSIDE = Path(__file__).parents[1] / "inside"
COUNT = "i=0; while sleep 0.05; do i=$((i+1)); echo $i >/data/new; mv /data/new /data/count; done"


class Saved:
    """A runtime with CRIU, its images, and a container that counts in a file."""

    def __init__(self, runtime: Runtime, criu: Path) -> None:
        self.runtime = runtime
        self.images = runtime.bundle / "images"
        self.count = runtime.bundle / "rootfs/data/count"
        self.program = ("--criu", str(criu))

    def __call__(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return self.runtime(*self.program, *words, **options)

    def begin(self, script: str = COUNT, **changes: Any) -> None:
        """Run a script in the background and wait for its first word."""
        self.runtime.change({"root": {"readonly": False}} | changes, "sh", "-c", script)
        command = [self.runtime.command, "--root", self.runtime.root, "run", "--detach", self.runtime.id]
        nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        subprocess.run(command, cwd=self.runtime.bundle, check=True, timeout=60, **nothing)  # type: ignore[call-overload]
        until(self.count.exists)

    def checkpoint(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return self("checkpoint", "--image-path", self.images, *words, self.runtime.id)

    def restore(self, *words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return self("restore", "--image-path", self.images, *words, self.runtime.id, **options)

    def goes_on(self) -> None:
        """Wait until more is counted than now."""
        now = int(self.count.read_text())
        until(lambda: int(self.count.read_text()) > now)


@pytest.fixture
def saved(runtime: Runtime, criu: Path) -> Saved:
    """It."""
    return Saved(runtime, criu)


def test_again(saved: Saved) -> None:
    """A container ends when it is saved, goes on where it was, and every verb works with it; then once more."""
    saved.begin()
    for _ in range(2):
        done = saved.checkpoint()
        assert (done.returncode, done.stderr) == (0, b""), done
        assert saved.runtime.clean()
        now = int(saved.count.read_text())
        assert now > 0
        done = saved.restore("--detach", "--pid-file", "pid")
        assert (done.returncode, done.stderr) == (0, b""), done
        saved.goes_on()
        assert int(saved.count.read_text()) > now
    state = saved.runtime.json("state", saved.runtime.id)
    assert (state["status"], str(state["pid"])) == ("running", (saved.runtime.bundle / "pid").read_text())
    assert saved("exec", saved.runtime.id, "cat", "/proc/1/comm").stdout == b"sh\n"
    assert saved.runtime.json("events", "--stats", saved.runtime.id)["data"]["pids"]["current"] >= 1
    assert saved("pause", saved.runtime.id).returncode == 0
    assert saved("resume", saved.runtime.id).returncode == 0
    assert saved("kill", saved.runtime.id, "KILL").returncode == 0
    saved.runtime.until("stopped")
    assert saved("delete", saved.runtime.id).returncode == 0
    assert saved.runtime.clean()


def test_exit_status_and_streams(saved: Saved) -> None:
    """In the foreground a restored program has the caller's streams, and its exit code is the verb's."""
    script = "echo 1 >/data/count; read word; echo got $word; exit 7"
    saved.runtime.change({"root": {"readonly": False}}, "sh", "-c", script)
    command = [saved.runtime.command, "--root", saved.runtime.root, "run", saved.runtime.id]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=saved.runtime.bundle, **pipes) as first:  # type: ignore[call-overload]
        until(saved.count.exists)
        assert saved.checkpoint().returncode == 0
    again = [command[0], *saved.program, *command[1:3], "restore", "--image-path", saved.images, saved.runtime.id]
    done = subprocess.run(again, cwd=saved.runtime.bundle, input=b"it\n", capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (7, b"got it\n"), done
    assert first.returncode == 128 + 9
    assert saved.runtime.clean()


def test_left_running(saved: Saved) -> None:
    """With --leave-running the container goes on, and a copy of then can be had once it is gone."""
    saved.begin()
    assert saved.checkpoint("--leave-running").returncode == 0
    saved.goes_on()
    assert saved("delete", "--force", saved.runtime.id).returncode == 0
    assert saved.restore("--detach").returncode == 0
    saved.goes_on()


@pytest.mark.parametrize("leave", [True, False])
def test_paused(saved: Saved, leave: bool) -> None:
    """A paused container can be saved: it stays paused, or has ended."""
    saved.begin()
    assert saved("pause", saved.runtime.id).returncode == 0
    now = int(saved.count.read_text())
    done = saved.checkpoint(*(["--leave-running"] if leave else []))
    assert (done.returncode, done.stderr) == (0, b""), done
    if leave:
        assert saved.runtime.json("state", saved.runtime.id)["status"] == "paused"
        assert saved("resume", saved.runtime.id).returncode == 0
        saved.goes_on()
        assert saved("delete", "--force", saved.runtime.id).returncode == 0
    assert saved.runtime.clean()
    assert saved.restore("--detach").returncode == 0
    until(lambda: int(saved.count.read_text()) > now)


def test_file_locks(saved: Saved) -> None:
    """A lock is refused without --file-locks, and held again with it."""
    program = saved.runtime.bundle / "rootfs/bin/lock"
    shutil.copy(compiled("lock", [INSIDE / "lock.c"]), program)
    saved.begin(f"exec lock /data/lock sh -c '{COUNT}'")
    done = saved.checkpoint()
    assert done.returncode == 1
    assert b"criu could not save container" in done.stderr
    saved.goes_on()
    assert saved.checkpoint("--file-locks").returncode == 0
    assert saved.restore("--detach", "--file-locks").returncode == 0
    saved.goes_on()
    assert saved("exec", saved.runtime.id, "lock", "/data/lock", "true").returncode == 1


def test_connections(saved: Saved) -> None:
    """Connections inside the container's network need --tcp-established, and still carry data afterwards."""
    (saved.runtime.bundle / "rootfs/bin/nc").symlink_to("busybox")
    serve = "sleep 600 | nc -l -p 5000 >/data/got & sleep 0.5; "
    talk = "(while sleep 0.05; do i=$((i+1)); echo $i; echo $i >/data/new; mv /data/new /data/count; done)"
    saved.begin(f"{serve}i=0; {talk} | nc 127.0.0.1 5000")
    got = saved.runtime.bundle / "rootfs/data/got"
    until(lambda: got.stat().st_size)
    assert saved.checkpoint().returncode == 1
    saved.goes_on()
    done = saved.checkpoint("--tcp-established")
    assert done.returncode == 0, done
    size = got.stat().st_size
    done = saved.restore("--detach", "--tcp-established")
    assert done.returncode == 0, done
    until(lambda: got.stat().st_size > size)


def test_network_of_others(saved: Saved) -> None:
    """A container in a network namespace given by path is brought back into the one the bundle names."""
    with subprocess.Popen(["unshare", "--net", "sleep", "600"]) as keeper:
        try:
            place = Path(f"/proc/{keeper.pid}/ns/net")
            until(lambda: place.readlink() != Path("/proc/self/ns/net").readlink())
            kinds = ("pid", "ipc", "uts", "mount", "cgroup")
            spaces = [{"type": kind} for kind in kinds] + [{"type": "network", "path": str(place)}]
            saved.begin(linux={"namespaces": spaces})
            done = saved.checkpoint()
            assert done.returncode == 0, done
            done = saved.restore("--detach")
            assert done.returncode == 0, done
            pid = saved.runtime.json("state", saved.runtime.id)["pid"]
            assert Path(f"/proc/{pid}/ns/net").readlink() == place.readlink()
            saved.goes_on()
        finally:
            keeper.kill()


def test_a_directory_in_the_hosts_memory_stays_the_hosts(saved: Saved) -> None:
    """A bind mount of a tmpfs is not saved with its files: it is shown again, with what is in it by then."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        shown = {"destination": "/shown", "type": "bind", "source": place, "options": ["bind"]}
        mounts = [*saved.runtime.example()["mounts"], shown]
        saved.begin(f"{COUNT[:-6]}; echo $i >/shown/count; done", mounts=mounts)
        assert saved.checkpoint().returncode == 0
        (Path(place) / "count").unlink()
        assert saved.restore("--detach").returncode == 0
        until((Path(place) / "count").exists)
        saved("delete", "--force", saved.runtime.id)


def test_pre_dump(saved: Saved, criu: Path) -> None:
    """Memory is saved beforehand where the kernel tracks it; elsewhere that is said, and the container goes on."""
    saved.begin()
    probe = subprocess.run([criu, "check", "--feature", "mem_dirty_track"], capture_output=True)
    done = saved("checkpoint", "--pre-dump", "--image-path", saved.runtime.bundle / "before", saved.runtime.id)
    if probe.returncode:
        assert (done.returncode, b"this kernel can't track memory" in done.stderr) == (1, True), done
    else:
        assert done.returncode == 0, done
        saved.goes_on()
        assert saved.checkpoint("--parent-path", "../before").returncode == 0
        assert saved.restore("--detach").returncode == 0
    saved.goes_on()


def test_images_of_others(saved: Saved) -> None:
    """Images with a link among them, or in a directory where others write, are not opened; nothing is left."""
    saved.begin()
    assert saved.checkpoint().returncode == 0
    saved.images.chmod(0o777)
    assert b"others may write there" in saved.restore("--detach").stderr
    saved.images.chmod(0o700)
    link = saved.images / "tmpfs-dev-9.tar.gz.img"
    link.symlink_to("/etc/shadow")
    assert b"is not a plain file" in saved.restore("--detach").stderr
    link.unlink()
    (saved.images / "descriptors.json").write_text(json.dumps(["net[1]:extRootNetNS", "", ""]))
    assert b"malformed" in saved.restore("--detach").stderr
    linked = saved.runtime.bundle / "linked"
    linked.symlink_to(saved.images)
    done = saved("restore", "--image-path", linked, saved.runtime.id)
    assert b"it is not a directory" in done.stderr
    assert saved.runtime.clean()


STRICTER: dict[str, tuple[dict[str, Any], str]] = {
    "rights": ({"process": {"capabilities": {"bounding": [], "effective": [], "permitted": []}}}, "rights"),
    "filter": ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}, "system call filter"),
    "root": ({"root": {"path": "other"}}, ""),
}


@pytest.mark.parametrize(("changes", "words"), STRICTER.values(), ids=STRICTER)
def test_bundle_decides(saved: Saved, changes: dict[str, Any], words: str) -> None:
    """Processes that have more than the bundle gives them don't go on, and nothing is left of them."""
    (saved.runtime.bundle / "other").mkdir()
    saved.begin()
    assert saved.checkpoint().returncode == 0
    now = saved.count.read_text()
    saved.runtime.change({"root": {"readonly": False}} | changes, "true")
    done = saved.restore("--detach")
    assert done.returncode == 1
    assert words in done.stderr.decode()
    assert saved.count.read_text() == now
    assert saved.runtime.clean()


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "lazy": ({}, ("--lazy-pages",), "--lazy-pages is not supported"),
    "server": ({}, ("--page-server", "127.0.0.1:1"), "--page-server is not supported"),
    "parent": ({}, ("--parent-path", "/tmp"), "is not relative"),
}


@pytest.mark.parametrize(("changes", "words", "said"), REFUSED.values(), ids=REFUSED)
def test_refused(saved: Saved, changes: dict[str, Any], words: tuple[str, ...], said: str) -> None:
    """What can't be done is refused by name, and the container goes on."""
    saved.begin(**changes)
    done = saved.checkpoint(*words)
    assert (done.returncode, said in done.stderr.decode()) == (1, True), done
    saved.goes_on()


def test_no_criu(runtime: Runtime) -> None:
    """Without CRIU the package and the version needed are named, and the container goes on."""
    runtime.change({}, "sleep", "600")
    assert runtime("run", "--detach", runtime.id).returncode == 0
    done = runtime("checkpoint", runtime.id, env=os.environ | {"PATH": "/nowhere"})
    assert done.returncode == 1
    assert b"there is no criu" in done.stderr
    assert b"apt install criu, version 4.2 or later" in done.stderr
    assert runtime.json("state", runtime.id)["status"] == "running"
