"""`trivet-runtime` as an ordinary user: a real one, made for these tests and removed again."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.busybox import busybox_tar
from tests.runtime import COMMAND, GROUP, Runtime, bundle, until

pytestmark = [pytest.mark.needs("root", "useradd", "newuidmap", "newgidmap", "setpriv")]
CGROUP = Path("/sys/fs/cgroup")


class Person(Runtime):
    """An ordinary user with a bundle, a run directory and ids of their own (/etc/subuid)."""

    def __init__(self, name: str, home: Path) -> None:
        super().__init__(COMMAND, home / "run/trivet-runtime", bundle(home / "bundle"))
        self.name = name
        self.home = home
        self.groups: list[Path] = []
        found = pwd.getpwnam(name)
        self.uid, self.gid = found.pw_uid, found.pw_gid
        (home / "run").mkdir(mode=0o700)
        for path in (home, *home.glob("**/*")):
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
        line = next(line for line in Path("/etc/subuid").read_text().splitlines() if line.startswith(f"{name}:"))
        self.first = int(line.split(":")[1])

    @property
    def environment(self) -> dict[str, str]:
        """A session's variables."""
        own = {"HOME": str(self.home), "USER": self.name, "XDG_RUNTIME_DIR": str(self.home / "run")}
        return {"PATH": os.environ["PATH"], **own}

    def argv(self, *words: str | Path) -> list[str | Path]:
        """Build what runs `words` as this user, in the control groups that were delegated."""
        moves = "".join(f"echo $$ >{group}/cgroup.procs; " for group in self.groups)
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups", "--"]
        return ["sh", "-c", f'{moves}exec "$@"', "sh", *become, *words]

    def __call__(self, *words: str | Path, stdin: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a verb to its end; state is where it is by default."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            command = self.argv(COMMAND, *words)
            given: dict[str, Any] = {"cwd": self.bundle, "env": self.environment, "timeout": 60} | options
            done = subprocess.run(command, input=stdin, stdout=out, stderr=err, check=False, **given)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, out.read(1 << 20), err.read(1 << 20))

    def example(self) -> dict[str, Any]:
        """Read what `spec --rootless` writes."""
        path = self.bundle / "config.json"
        path.unlink(missing_ok=True)
        assert self("spec", "--rootless").returncode == 0
        config: dict[str, Any] = json.loads(path.read_text())
        return config


@pytest.fixture(scope="module")
def account() -> Iterator[str]:
    """The name of an account that is removed afterwards."""
    name = f"trt{os.getpid()}"
    subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    try:
        ids = f"{1 << 30}-{(1 << 30) + 65535}"
        subprocess.run(["usermod", "--add-subuids", ids, "--add-subgids", ids, name], check=True)
        yield name
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


@pytest.fixture
def person(account: str) -> Iterator[Person]:
    """That user at home; whatever is left is deleted."""
    home = Path(tempfile.mkdtemp(prefix="tvp", dir="/tmp"))
    home.chmod(0o755)
    person = Person(account, home)
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, home)
        if subprocess.run(person.argv(COMMAND, "--version"), env=person.environment, capture_output=True).returncode:
            pytest.skip("ordinary users can't reach the command here")
        yield person
        for name in person("list", "--quiet").stdout.decode().split():
            assert person("delete", "--force", name).returncode == 0


def test_run(person: Person) -> None:
    """`run` of what `spec --rootless` writes: root inside, the user outside, the exit code, nothing left."""
    person.configure("sh", "-c", "id -u; cat /proc/self/uid_map; cat; test -c /dev/null && exit 5")
    done = person("run", person.id, stdin=b"typed\n")
    assert done.stdout.split() == [b"0", b"0", str(person.uid).encode(), b"1", b"typed"]
    assert (done.returncode, done.stderr) == (5, b"")
    assert list(person.root.iterdir()) == []


def test_life(person: Person) -> None:
    """Every verb that needs no control group works without one; those that do say so."""
    person.configure("sleep", "600")
    assert person("create", person.id).returncode == 0
    assert person("start", person.id).returncode == 0
    done = person("exec", "--user", "0", "--cwd", "/bin", person.id, "sh", "-c", "id -u; pwd; exit 9")
    assert (done.returncode, done.stdout) == (9, b"0\n/bin\n")
    assert person("exec", "--detach", person.id, "sleep", "601").returncode == 0
    pid = person.json("state", person.id)["pid"]
    assert person.json("ps", "--format", "json", person.id)[0] == pid
    assert b"sleep 601" in person("ps", person.id).stdout
    assert [row["owner"] for row in person.json("list", "--format", "json")] == [person.name]
    for words in (("pause",), ("events", "--stats")):
        assert b"no control group" in person(*words, person.id).stderr
    assert b"memory was not delegated to this user" in person("update", "--memory", "64m", person.id).stderr
    assert person("kill", person.id, "KILL").returncode == 0
    person.until("stopped")
    assert person("delete", person.id).returncode == 0
    assert list(person.root.iterdir()) == []


def test_control_groups_are_read_only(person: Person) -> None:
    """The host's control groups, seen without one of its own, can't be written to (CVE-2023-25809)."""
    tries = "for f in $(ls -d /sys/fs/cgroup/*/ /sys/fs/cgroup); do mkdir $f/x && echo made $f; done; echo done"
    person.configure("sh", "-c", tries)
    done = person("run", person.id)
    assert (done.returncode, done.stdout) == (0, b"done\n"), done
    assert b"Read-only file system" in done.stderr


def test_several_mappings(person: Person) -> None:
    """With ids of their own, by newuidmap and newgidmap, a user has other users inside."""
    more = [{"containerID": 1, "hostID": person.first, "size": 1000}]
    person.change({}, "sh", "-c", "id -u; id -g; id -G; cat /proc/self/uid_map")
    config = json.loads((person.bundle / "config.json").read_text())
    for kind in ("uidMappings", "gidMappings"):
        config["linux"][kind] += more
    config["process"]["user"] = {"uid": 5, "gid": 6, "additionalGids": [7]}
    (person.bundle / "config.json").write_text(json.dumps(config))
    done = person("run", person.id)
    words = ["5", "6", "6", "7", "0", str(person.uid), "1", "1", str(person.first), "1000"]
    assert done.stdout.decode().split() == words, done


def test_mappings_of_others(person: Person) -> None:
    """Ids that weren't given to this user are refused in a sentence, and nothing is left."""
    person.change({"linux": {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 10}]}}, "true")
    done = person("run", person.id)
    assert done.returncode == 1
    assert b"cannot map the ids: newuidmap: uid range" in done.stderr
    assert list(person.root.iterdir()) == []


def namespaces(*kinds: str) -> list[dict[str, str]]:
    """Spell namespaces out."""
    return [{"type": kind} for kind in kinds]


def mount(**parts: Any) -> list[dict[str, Any]]:
    """Spell one mount out."""
    return [{"destination": "/x", **parts}]


NO_MAPS = {"uidMappings": None, "gidMappings": None}
LIMIT = {"memory": {"limit": 1 << 26}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "user": ({"linux": {"namespaces": namespaces("mount")} | NO_MAPS}, "a user namespace"),
    "pid": ({"linux": {"namespaces": namespaces("mount", "user")}}, "a pid namespace of its own"),
    "time": ({"linux": {"namespaces": namespaces("mount", "user", "time")}}, "a new time namespace needs root"),
    "interface": ({"linux": {"netDevices": {"lo": {}}}}, "moving a network interface needs root"),
    "limit": ({"linux": {"resources": LIMIT}}, "not delegated to this user - at `$.linux.resources.memory`"),
    "gid": ({"mounts": mount(type="tmpfs", options=["gid=5"])}, "gid=5 is not mapped - at `$.mounts[0].options`"),
    "idmap": ({"mounts": mount(source="/", options=["bind", "idmap"])}, "with other owners needs root"),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(person: Person, changes: dict[str, Any], words: str) -> None:
    """What an ordinary user can't have is refused by name before anything is made."""
    person.change(changes, "true")
    done = person("run", person.id)
    assert (done.returncode, words in done.stderr.decode()) == (1, True), done
    assert not person.root.exists() or list(person.root.iterdir()) == []


def test_root_of_others(person: Person) -> None:
    """State can't be kept where the user may not write, and that is said."""
    person.configure("true")
    done = person("--root", "/run/nowhere", "run", person.id)
    assert done.returncode == 1
    assert b"cannot keep state in /run/nowhere: permission denied" in done.stderr


def test_runtime_is_killed(person: Person) -> None:
    """kill -9 of a `run` leaves a container that another command finds, and ends."""
    person.configure("sleep", "600")
    command = person.argv(COMMAND, "run", person.id)
    child = subprocess.Popen(command, cwd=person.bundle, env=person.environment, stdin=subprocess.DEVNULL)
    until(lambda: person("state", person.id).returncode == 0 and person.json("state", person.id)["status"] == "running")
    child.send_signal(signal.SIGKILL)
    child.wait()
    pid = person.json("state", person.id)["pid"]
    assert person("delete", "--force", person.id).returncode == 0
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert list(person.root.iterdir()) == []


@pytest.fixture
def delegated(person: Person) -> Iterator[str]:
    """A control group in which the user may do as they like, with the user's commands in it; its path."""
    path = f"{GROUP}-{secrets.token_hex(3)}"
    hierarchies = [place for place in (CGROUP, *CGROUP.glob("*/")) if (place / "cgroup.procs").exists()]
    for hierarchy in hierarchies:
        if (hierarchy / "cgroup.controllers").exists() or hierarchy.name in ("memory", "pids", "freezer"):
            group = hierarchy / path
            for place in (group, group / "session"):
                place.mkdir()
            for place in (group, group / "session", *group.glob("*"), *group.glob("session/*")):
                if place.is_dir() or place.name in ("cgroup.procs", "cgroup.subtree_control", "tasks"):
                    os.chown(place, person.uid, person.gid)
            person.groups.append(group / "session")
    yield path
    for name in person("list", "--quiet").stdout.decode().split():
        assert person("delete", "--force", name).returncode == 0
    for group in person.groups:
        until(lambda group=group: not (group / "cgroup.procs").read_text())  # type: ignore[misc]
        for place in (group, group.parent):
            place.rmdir()


def test_control_groups_that_are_given(person: Person, delegated: str) -> None:
    """The same attempt makes a group where one is shown writable: it is the read-only mount that holds it off."""
    above = person.groups[-1].parent
    assert above.name == delegated
    mount = {"destination": "/data", "source": str(above), "options": ["bind"]}
    config = person.example()
    config["mounts"].append(mount)
    config["linux"]["cgroupsPath"] = f"/{delegated}/{person.id}"
    person.write(config, ["sh", "-c", "mkdir /data/x && echo made"], {})
    done = person("run", person.id)
    assert (done.returncode, done.stdout) == (0, b"made\n"), done
    (above / "x").rmdir()


def test_delegated_groups(person: Person, delegated: str) -> None:
    """In a control group that was delegated, limits, freezing and statistics work for an ordinary user."""
    limits = {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}}
    person.change({"linux": {"cgroupsPath": f"/{delegated}/{person.id}", "resources": limits}}, "sleep", "600")
    assert person("run", "--detach", person.id).returncode == 0
    assert person.json("events", "--stats", person.id)["data"]["memory"]["usage"]["limit"] == 64 << 20
    assert person("pause", person.id).returncode == 0
    assert person.json("state", person.id)["status"] == "paused"
    assert person("resume", person.id).returncode == 0
    assert person("update", "--memory", "96m", person.id).returncode == 0
    assert person.json("events", "--stats", person.id)["data"]["memory"]["usage"]["limit"] == 96 << 20
    assert person("exec", person.id, "true").returncode == 0
    assert person("delete", "--force", person.id).returncode == 0
    assert not list(CGROUP.glob(f"*/{delegated}/{person.id}"))


@pytest.mark.needs("podman", "conmon")
def test_podman(person: Person) -> None:
    """An ordinary user's podman runs, execs and removes with our runtime, in its own user namespace."""
    place: list[str | Path] = [*("podman", "--root", person.home / "podman", "--runroot", person.home / "run/podman")]
    settings = ["--storage-driver=vfs", "--events-backend=file", "--cgroup-manager=cgroupfs", f"--runtime={COMMAND}"]

    def podman(*words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = person.argv(*place, *settings, *words)
        with tempfile.TemporaryFile() as out:
            done = subprocess.run(command, input=stdin, stdout=out, env=person.environment, cwd="/tmp", timeout=90)
            out.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, out.read(1 << 20))

    try:
        if podman("import", "-", "localhost/busybox:test", stdin=busybox_tar()).returncode:
            pytest.skip("podman of an ordinary user doesn't work here")
        words = ["run", "--rm", "--network=none", "localhost/busybox:test"]
        done = podman(*words, "sh", "-c", "id -u; cat /proc/self/uid_map; exit 4")
        assert (done.returncode, done.stdout.split()[:4]) == (4, [b"0", b"0", str(person.uid).encode(), b"1"])
        assert podman("run", "--detach", "--name=c", *words[2:], "sleep", "600").returncode == 0
        assert podman("exec", "c", "id", "-u").stdout == b"0\n"
        assert podman("rm", "--force", "--time=0", "c").returncode == 0
    finally:
        # Layers belong to users whom only the user namespace knows, which a process of podman's keeps.
        podman("unshare", "rm", "-rf", person.home / "podman")
        podman("system", "migrate")
