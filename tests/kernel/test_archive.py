"""The builtins behind `cp`: hostile archives, hostile trees, and somebody who swaps links meanwhile.

The root is a directory; the launcher is not even confined to it here, so nothing but the builtins
themselves keeps an archive inside. `outside` is the canary: it must never change and never be read.

That the attacks are attacks is shown with `weak`: the same launcher, linked with a system call that
joins names to the root and lets the links in them lead where they will.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivet.client.schema import PathStat
from trivet.launch import launcher
from trivet.launch.operation import Bind, Builtin, File, Mount, Operation, Propagation, Root, Spawn, Unshare
from trivet.launch.spawn import Completed, run

pytestmark = pytest.mark.needs("root")

NOT_FOUND = 44
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
LONG = "x" * 120
Entries = list[tuple[str, dict[str, object], bytes]]


class Box:
    """A root with a canary beside it."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.outside = base / "outside"
        (self.root / "dest").mkdir(parents=True)
        self.outside.mkdir()
        (self.outside / "secret").write_text("canary")
        self.before = self.snapshot()

    def call(self, name: str, path: str, data: bytes | None = None) -> Completed:
        """Run a builtin."""
        return run(
            [Root(str(self.root)), Spawn(stdin=int(data is not None)), Builtin(name, (path,))], input=data, timeout=30
        )

    def read(self, path: str) -> tarfile.TarFile:
        """Archive a path."""
        done = self.call("archive-read", path)
        assert done.code == 0, done.error_output
        return tarfile.open(fileobj=io.BytesIO(done.output))

    def write(self, data: bytes, path: str = "/dest") -> Completed:
        """Extract an archive."""
        return self.call("archive-write", path, data)

    def stat(self, path: str) -> PathStat:
        """Look at a path."""
        done = self.call("stat", path)
        assert done.code == 0, done.error_output
        return msgspec.json.decode(done.output, type=PathStat)

    def snapshot(self) -> list[tuple[str, int, int, bytes]]:
        """All there is of the canary."""
        found = []
        for path in sorted(self.outside.rglob("*")):
            info = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
            found.append((str(path), info.st_mode, info.st_nlink, content))
        return found

    def check(self) -> None:
        """The canary lives."""
        assert self.snapshot() == self.before


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    yield box
    box.check()


def tar(entries: Entries, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Build an archive from (name, attributes, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, attributes, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that a copy must keep."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        what: object = None
        if stat.S_ISREG(info.st_mode):
            what = path.read_bytes()
        elif stat.S_ISLNK(info.st_mode):
            what = str(path.readlink())
        when = info.st_mtime_ns // 10**9
        found[str(path.relative_to(root))] = (info.st_mode, info.st_uid, info.st_gid, info.st_nlink, when, what)
    return found


def build(root: Path) -> None:
    """Put one of everything below a directory."""
    (root / "a" / "deep" / LONG / LONG).mkdir(parents=True)
    (root / "a" / "deep" / LONG / LONG / "end").write_bytes(os.urandom(200_000))
    (root / "a" / "empty").touch()
    (root / "a" / "ünï\n").write_text("odd name")
    (root / "a" / "program").write_text("#!")
    os.link(root / "a" / "program", root / "a" / "hard")
    os.chown(root / "a" / "program", 3_000_000_000, 5)
    (root / "a" / "program").chmod(0o6755)
    (root / "a" / "link").symlink_to("/etc/passwd")
    (root / "a" / "long").symlink_to(f"/{LONG}/{LONG}")
    os.mkfifo(root / "a" / "pipe", 0o640)
    os.mknod(root / "a" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for path in (root / "a", *(root / "a").rglob("*")):
        os.utime(path, (1, 1_000_000_000), follow_symlinks=False)


def test_round_trip(box: Box) -> None:
    """What is read and written again is the same: names, owners, modes, times, links, pipes, devices."""
    build(box.root)
    done = box.call("archive-read", "/a")
    assert done.code == 0
    assert box.write(done.output).code == 0
    assert tree(box.root / "a") == tree(box.root / "dest" / "a")


def test_others_read_it(box: Box, tmp_path: Path) -> None:
    """GNU tar extracts what we archive, to the same tree; and we extract what it archives, in each of its formats."""
    build(box.root)
    (tmp_path / "gnu").mkdir()
    subprocess.run(
        ["tar", "-xpf", "-", "-C", tmp_path / "gnu"], input=box.call("archive-read", "/a").output, check=True
    )
    assert tree(tmp_path / "gnu" / "a") == tree(box.root / "a")
    for form in ("gnu", "pax"):
        made = subprocess.run(
            ["tar", f"--format={form}", "-cf", "-", "-C", box.root, "a"], capture_output=True, check=True
        )
        (box.root / form).mkdir()
        assert box.write(made.stdout, f"/{form}").code == 0
        assert tree(box.root / form / "a") == tree(box.root / "a")


def test_names_of_entries(box: Box) -> None:
    """Entries begin with the path's last component; with /. and for the root they begin with a dot."""
    (box.root / "a" / "b").mkdir(parents=True)
    (box.root / "a" / "b" / "f").write_text("x")
    (box.root / "dir").symlink_to("a/b")
    for path, expected in {
        "/a/b": ["b", "b/f"],
        "a/b/": ["b", "b/f"],
        "/a/b/.": [".", "./f"],
        "/a/b/f": ["f"],
        "/dir": ["dir"],
        "/dir/": ["dir", "dir/f"],
        "/a/../a/b": ["b", "b/f"],
        "/../../../a/b/f": ["f"],
    }.items():
        assert box.read(path).getnames() == expected, path
    assert box.read("/").getnames()[0] == "."


def test_stat(box: Box) -> None:
    """A path is described as itself, a link with its target, odd names as JSON can carry them."""
    name = b'qu"ote\\\n\xff\xc3\xa9'
    Path(os.fsdecode(os.fsencode(box.root) + b"/" + name)).write_text("12345")
    found = box.stat("/" + os.fsdecode(name))
    assert found.name == 'qu"ote\\\n\ufffdé'
    assert (found.size, stat.S_ISREG(found.mode), found.link) == (5, True, "")
    (box.root / "link").symlink_to("/nowhere")
    assert box.stat("/link").link == "/nowhere"
    assert box.stat("/").name == "."
    assert datetime.fromisoformat(found.modified).year >= 2024


@pytest.mark.parametrize("name", ["archive-read", "archive-write", "stat"])
def test_missing(box: Box, name: str) -> None:
    """A path that isn't there has an exit status of its own, a wrong one a sentence."""
    (box.root / "file").write_text("x")
    for path in ("/missing", "/dest/missing/x"):
        done = box.call(name, path, b"")
        assert done.code == NOT_FOUND
        assert path in done.error_output.decode()
    done = box.call(name, "/file/x", b"")
    assert done.code == 1
    assert b"Not a directory" in done.error_output


@pytest.mark.parametrize("name", ["archive-read", "archive-write", "stat"])
def test_links_stay_inside(box: Box, name: str) -> None:
    """Absolute and climbing links in the path lead to somewhere inside the root, or nowhere."""
    for number, target in enumerate((str(box.outside), "../outside", "../../../../../.." + str(box.outside))):
        (box.root / f"l{number}").symlink_to(target)
        assert box.call(name, f"/l{number}/", b"").code == NOT_FOUND
        assert box.call(name, f"/l{number}/secret", b"").code == NOT_FOUND
    (box.root / "magic").symlink_to("/proc/self/root")
    assert box.call(name, "/magic/etc", b"").code == NOT_FOUND


HOSTILE: dict[str, Callable[[Box], Entries]] = {
    "dot-dot": lambda box: [("../../outside/evil", {}, b"x")],
    "dot-dot inside": lambda box: [("a/../../../outside/evil", {}, b"x")],
    "hard link out": lambda box: [
        ("h", {"type": tarfile.LNKTYPE, "linkname": str(box.outside / "secret")}, b""),
        ("h", {}, b"evil"),
    ],
    "hard link with dot-dot": lambda box: [("h", {"type": tarfile.LNKTYPE, "linkname": "../../outside/secret"}, b"")],
    "long dot-dot": lambda box: [("../" * 60 + str(box.outside) + "/evil", {}, b"x")],
    "whiteout device": lambda box: [("w", {"type": tarfile.CHRTYPE, "devmajor": 0, "devminor": 0}, b"")],
    "owner out of range": lambda box: [("f", {"uid": 1 << 33}, b"")],
    "unknown type": lambda box: [("f", {"type": b"Z"}, b"")],
    "GNU sparse": lambda box: [("f", {"type": b"S"}, b"")],
    "no name": lambda box: [(".", {}, b"x")],
}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archive(box: Box, case: str, form: int) -> None:
    """An archive that leads out of its target, or means something else to a host, is refused in one sentence."""
    done = box.write(tar(HOSTILE[case](box), form))
    assert done.code == 1
    assert done.error_output.count(b"\n") == 1


def link(name: str, target: str | Path) -> tuple[str, dict[str, object], bytes]:
    return name, {"type": tarfile.SYMTYPE, "linkname": str(target)}, b""


def directory(name: str) -> tuple[str, dict[str, object], bytes]:
    return name, {"type": tarfile.DIRTYPE, "mode": 0o711}, b""


CONTAINED: dict[str, Callable[[Box], Entries]] = {
    "through a link": lambda box: [link("d", box.outside), ("d/evil", {}, b"x")],
    "through a relative link": lambda box: [link("d", "../../outside"), ("d/evil", {}, b"x")],
    "through two links": lambda box: [link("d", "e"), link("e", box.outside), ("d/evil", {}, b"x")],
    "through a link that was there": lambda box: [("there/evil", {}, b"x")],
    "making directories": lambda box: [link("d", "../.."), ("d/outside/p/q/evil", {}, b"x")],
    "making a directory": lambda box: [link("d", box.outside), directory("d/evil")],
    "making a link": lambda box: [link("d", box.outside), link("d/evil", "x")],
    "making a pipe": lambda box: [link("d", box.outside), ("d/evil", {"type": tarfile.FIFOTYPE}, b"")],
    "a directory over a link": lambda box: [link("d", box.outside), directory("d"), ("d/evil", {}, b"x")],
    "replacing a file": lambda box: [link("d", box.outside), ("d/secret", {}, b"x")],
    "a directory in a file's place": lambda box: [link("d", box.outside), directory("d/secret")],
    "a hard link's target": lambda box: [
        link("d", box.outside),
        ("h", {"type": tarfile.LNKTYPE, "linkname": "d/secret"}, b""),
    ],
}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("case", CONTAINED)
def test_contained_archive(box: Box, case: str, form: int) -> None:
    """Links are followed inside the root only, wherever they point."""
    (box.root / "dest" / "there").symlink_to(box.outside)
    assert box.write(tar(CONTAINED[case](box), form)).code in (0, 1)


@pytest.mark.parametrize("case", CONTAINED)
@pytest.mark.usefixtures("weak")
def test_contained_archive_is_an_attack(tmp_path: Path, case: str) -> None:
    """Each of these archives changes what is outside when names are resolved the simple way."""
    box = Box(tmp_path)
    (box.root / "dest" / "there").symlink_to(box.outside)
    assert box.write(tar(CONTAINED[case](box))).code == 0
    assert box.snapshot() != box.before


def test_merged_usr(box: Box) -> None:
    """What an archive has below bin/ gets to where /bin leads; the link and its target's attributes stay."""
    for name, target in {"bin": "usr/bin", "lib": "/usr/lib", "sbin": "bin"}.items():
        (box.root / "usr" / target.removeprefix("/").removeprefix("usr/")).mkdir(parents=True, exist_ok=True)
        (box.root / name).symlink_to(target)
    (box.root / "usr" / "bin").chmod(0o750)
    entries: Entries = [
        directory("bin"),
        ("bin/x", {"mode": 0o755}, b"x"),
        ("sbin/y", {"type": tarfile.LNKTYPE, "linkname": "bin/x"}, b""),
        ("lib/deep/er/so", {}, b"so"),
        directory("lib/deep"),
    ]
    assert box.write(tar(entries), "/").code == 0
    assert [(box.root / name).readlink() for name in ("bin", "lib", "sbin")] == [
        *map(Path, ("usr/bin", "/usr/lib", "bin"))
    ]
    assert sorted(path.name for path in (box.root / "usr" / "bin").iterdir()) == ["x", "y"]
    assert (box.root / "usr" / "bin" / "x").stat().st_nlink == 2
    assert stat.S_IMODE((box.root / "usr" / "bin").stat().st_mode) == 0o750
    assert stat.S_IMODE((box.root / "usr" / "lib" / "deep").stat().st_mode) == 0o711
    assert (box.root / "usr" / "lib" / "deep" / "er" / "so").read_text() == "so"


def test_parent_that_leads_nowhere(box: Box) -> None:
    """Where a link leads to is made, as for any other missing parent; one that leads to itself is refused."""
    (box.root / "dest" / "run").symlink_to("/run/deep")
    (box.root / "dest" / "self").symlink_to("self")
    assert box.write(tar([("run/pid", {}, b"1")])).code == 0
    assert (box.root / "run" / "deep" / "pid").read_text() == "1"
    assert b"Symbolic link loop" in box.write(tar([("self/pid", {}, b"1")])).error_output


def test_what_is_in_the_way(box: Box) -> None:
    """A directory replaces what is neither one nor leads to one; nothing else replaces a directory."""
    place = box.root / "dest"
    (place / "file").touch()
    (place / "nowhere").symlink_to("nothing")
    (place / "tofile").symlink_to("file")
    (place / "todir").symlink_to("dir")
    (place / "dir").mkdir()
    assert box.write(tar([directory(name) for name in ("tofile", "file", "nowhere", "todir")])).code == 0
    assert {path.name: path.is_symlink() for path in place.iterdir() if path.is_dir()} == {
        "file": False,
        "nowhere": False,
        "tofile": False,
        "todir": True,
        "dir": False,
    }
    others: Entries = [("dir", {}, b"x"), link("dir", "x"), ("dir", {"type": tarfile.FIFOTYPE}, b"")]
    for entry in others:
        assert b"directory" in box.write(tar([entry])).error_output
    assert box.write(tar([("todir", {}, b"x")])).code == 0
    assert (place / "todir").read_text() == "x"
    assert not any((place / "dir").iterdir())


def test_links_are_replaced_not_followed(box: Box) -> None:
    """A file of the archive takes a link's place; what the link points to is left alone."""
    (box.root / "dest" / "f").symlink_to(box.outside / "secret")
    (box.root / "dest" / "s").symlink_to(box.outside)
    entries: Entries = [("f", {"mode": 0o777}, b"new"), ("/s", {"type": tarfile.SYMTYPE, "linkname": "/else"}, b"")]
    assert box.write(tar(entries)).code == 0
    assert (box.root / "dest" / "f").read_text() == "new"
    assert (box.root / "dest" / "s").readlink() == Path("/else")


def test_absolute_names_and_parents(box: Box) -> None:
    """Absolute names are taken as relative to the target, missing parents are made, types are not confused."""
    entries: Entries = [("/p/q/file", {}, b"1"), ("p/q/file", {}, b"22"), ("p/q/", {"type": tarfile.DIRTYPE}, b"")]
    assert box.write(tar(entries)).code == 0
    assert (box.root / "dest" / "p" / "q" / "file").read_text() == "22"
    done = box.write(tar([("p", {}, b"file over directory")]))
    assert done.code == 1
    assert b"directory" in done.error_output
    assert sorted(path.name for path in (box.root / "dest").rglob("*")) == ["file", "p", "q"]


@pytest.mark.parametrize("cut", [1, 511, 512, 700, 1023])
def test_cut_archive(box: Box, cut: int) -> None:
    """An archive that ends too early is refused; the file it was about is the old one, and nothing lies beside it."""
    (box.root / "dest" / "f").write_text("old")
    done = box.write(tar([("f", {}, b"n" * 600)])[:cut])
    assert done.code == 1
    assert b"cut short" in done.error_output
    assert [(path.name, path.read_text()) for path in (box.root / "dest").iterdir()] == [("f", "old")]


def test_corrupt_header(box: Box) -> None:
    """A header whose checksum is wrong is refused."""
    data = bytearray(tar([("f", {}, b"x")]))
    data[0] ^= 1
    assert b"malformed header" in box.write(bytes(data)).error_output


def test_huge_extended_header(box: Box) -> None:
    """An extended header without end takes no memory."""
    data = bytearray(tar([("f", {"pax_headers": {"comment": "c" * (2 << 20)}}, b"")]))
    done = box.write(bytes(data))
    assert done.code == 1
    assert b"extended header" in done.error_output


@pytest.mark.parametrize(
    "record", ["    \n5 a=b\n", "    \n5 ab\n", "-5 a=b\n", "0 a=b\n", "9 path=bb\n", "8 path b\n", "99 a=b\n"]
)
def test_malformed_extended_header(box: Box, record: str) -> None:
    """A record whose length is not its length is refused, and nothing beyond it is looked at."""
    header = tarfile.TarInfo("./PaxHeaders/entry")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    done = box.write(header.tobuf() + record.encode().ljust(512, b"\0") + tar([("f", {}, b"x")]))
    assert done.code == 1
    assert b"malformed extended header" in done.error_output


def test_full_mount_point(box: Box) -> None:
    """A file that is a mount point is overwritten; that its disk is full is not kept secret."""
    (box.root / "small").mkdir()
    (box.root / "dest" / "hosts").touch()
    mounts: list[Operation] = [
        Unshare(CLONE_NEWNS),
        Propagation("/", MS_PRIVATE | MS_REC),
        Root(str(box.root)),
        Mount("tmpfs", "small", "/small", options=("size=64k",)),
        File("/small/hosts", b"old"),
        Bind(str(box.root / "small" / "hosts"), "/dest/hosts"),
        Spawn(stdin=1),
    ]
    for size, code in {1000: 0, 1 << 20: 1}.items():
        done = run([*mounts, Builtin("archive-write", ("/dest",))], input=tar([("hosts", {}, b"n" * size)]), timeout=30)
        assert done.code == code, done.error_output
    assert b"No space left" in done.error_output


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mangled_archives(box: Box, data: st.DataObject) -> None:
    """Whatever is done to an archive's bytes, the builtin ends by itself with 0 or 1."""
    entries: Entries = [
        (LONG * 2, {"pax_headers": {"mtime": "1.5"}}, b"x" * 700),
        ("d", {"type": tarfile.DIRTYPE}, b""),
    ]
    archive = bytearray(tar(entries))
    for place in data.draw(st.lists(st.integers(0, len(archive) - 1), max_size=8)):
        archive[place] = data.draw(st.integers(0, 255))
    assert box.write(bytes(archive)).code in (0, 1)


WEAK = """
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>

long __real_syscall(long, ...);

long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    const struct open_how *how = (void *)c;
    const char *path = (void *)b;
    if (number != SYS_openat2)
        return __real_syscall(number, a, b, c, d, e, f);
    path += strspn(path, "/");
    return __real_syscall(SYS_openat, a, *path ? path : ".", how->flags, how->mode);
}
"""


@pytest.fixture(scope="session")
def weak_launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher, linked with an openat2 that ignores what it is told about links."""
    base = tmp_path_factory.mktemp("weak")
    objects = launcher.BINARY.parent / "build"
    if objects.is_dir():
        shutil.copytree(objects, base / "build")  # with their times: they need not be made again
    (base / "weak.c").write_text(WEAK)
    native = launcher.BINARY.parents[1] / "native"
    kernel = ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{sys.implementation._multiarch}"]
    subprocess.run(["musl-gcc", "-c", "-o", base / "weak.o", base / "weak.c", *kernel], check=True)
    flags = f"LDFLAGS=-static -Wl,--wrap=syscall {base}/weak.o"
    subprocess.run(
        ["make", "-C", native, f"BIN={base}", flags, f"{base}/trivet-launcher"], check=True, capture_output=True
    )
    return base / "trivet-launcher"


@pytest.fixture
def weak(weak_launcher: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything is launched by the weak launcher."""
    monkeypatch.setattr(launcher, "BINARY", weak_launcher)
    monkeypatch.setattr(launcher, "_launcher", None)
    yield
    os.close(launcher.launcher_descriptor())


SWAPPER = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
one, two = (name.encode() for name in sys.argv[1:])
print("ready", flush=True)
while True:
    libc.renameat2(-100, one, -100, two, 2)
"""


@contextlib.contextmanager
def swapping(one: Path, two: Path) -> Iterator[None]:
    """Somebody in the instance who exchanges two names as fast as possible."""
    with subprocess.Popen([sys.executable, "-c", SWAPPER, str(one), str(two)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def swapped(box: Box, rounds: int) -> Iterator[int]:
    """Write again and again while a directory and a link that leads out are exchanged."""
    (box.root / "dest" / "d").mkdir()
    (box.root / "dest" / "d" / "secret").touch()
    (box.root / "dest" / "l").symlink_to(box.outside)
    files = tar([(f"d/{number}", {}, b"x") for number in range(20)])
    entries: Entries = [
        directory("d"),
        directory("d/p"),
        ("d/p/q/file", {}, b"x"),
        link("d/s", "x"),
        ("h", {"type": tarfile.LNKTYPE, "linkname": "d/secret"}, b""),
        ("d/secret", {}, b"x"),
    ]
    with swapping(box.root / "dest" / "d", box.root / "dest" / "l"):
        for _ in range(rounds):
            yield box.write(files).code
            yield box.write(files, "/dest/d").code
            yield box.write(tar(entries)).code


def test_swapped_target(box: Box) -> None:
    """While a directory and a link that leads out are exchanged, nothing is ever written outside."""
    results = set()
    for code in swapped(box, 50):
        results.add(code)
        box.check()
    assert 0 in results  # the race was a race


@pytest.mark.usefixtures("weak")
def test_swapped_target_is_an_attack(tmp_path: Path) -> None:
    """The same race is lost soon when names are resolved the simple way."""
    box = Box(tmp_path)
    assert any(box.snapshot() != box.before for _ in swapped(box, 150))


def test_swapped_source(box: Box) -> None:
    """While a file and a link to the canary are exchanged, the canary's content is never read."""
    inner = box.root / "src" / "d"
    inner.mkdir(parents=True)
    (inner / "secret").write_text("public")
    (box.root / "src" / "l").symlink_to(box.outside)
    (box.root / "src" / "f").write_text("public")
    (box.root / "src" / "s").symlink_to(box.outside / "secret")
    results = set()
    with swapping(inner, box.root / "src" / "l"), swapping(box.root / "src" / "f", box.root / "src" / "s"):
        for path in ("/src", "/src/d/", "/src/d/secret", "/src/f") * 60:
            done = box.call("archive-read", path)
            results.add(done.code)
            assert b"canary" not in done.output
            assert done.code in (0, 1, NOT_FOUND)
    assert 0 in results


def test_nothing_of_the_image_runs(box: Box) -> None:
    """Programs and libraries of a hostile image are neither executed nor loaded."""
    for name in ("bin/sh", "bin/tar", "usr/bin/xz", "lib/libnss_files.so.2", "etc/ld.so.preload"):
        path = box.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {box.outside}/ran\n")
        path.chmod(0o755)
    assert box.call("archive-read", "/").code == 0
    assert box.write(tar([("f", {"uname": "root", "gname": "root"}, b"x")])).code == 0
