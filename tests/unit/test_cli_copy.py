"""`cp` and `build` on real files: Docker's rules of what goes where, contexts, and hostile archives."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from argparse import Namespace
from pathlib import Path

import pytest

from trivet.base.error import Conflict, Corrupt, NotFound, TrivetError
from trivet.cli.build_context import _from_directory
from trivet.cli.copy import Target, place
from trivet.client.archive import pack, unpack

FILE, DIRECTORY = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


@pytest.mark.parametrize(
    ("source", "is_directory", "target", "mode", "expected"),
    [
        ("/a/f", False, "/b/g", None, Target("/b", "g")),
        ("/a/f", False, "/b/g", FILE, Target("/b", "g")),
        ("/a/f", False, "/b", DIRECTORY, Target("/b", "f")),
        ("/a/f", False, "/b/", DIRECTORY, Target("/b", "f")),
        ("/a/d", True, "/b/new", None, Target("/b", "new")),
        ("/a/d", True, "/b/new/", None, Target("/b", "new")),
        ("/a/d", True, "/b", DIRECTORY, Target("/b", "d")),
        ("/a/d/", True, "/b", DIRECTORY, Target("/b", "d")),
        ("/a/d/.", True, "/b", DIRECTORY, Target("/b", "")),
        ("/a/d/.", True, "/b/new", None, Target("/b", "new")),
        ("/", True, "b", DIRECTORY, Target("b", "")),
        ("f", False, "new", None, Target(".", "new")),
        ("f", False, "/", DIRECTORY, Target("/", "f")),
    ],
)
def test_where_a_copy_goes(source: str, is_directory: bool, target: str, mode: int | None, expected: Target) -> None:
    """A directory that exists takes the source in; otherwise the target is the new name."""
    assert place(source, source_is_directory=is_directory, target=target, target_mode=mode) == expected


def test_where_a_copy_does_not_go() -> None:
    """A directory doesn't replace a file, and a file doesn't make a directory."""
    with pytest.raises(Conflict, match="cannot copy directory d onto file f"):
        place("d", source_is_directory=True, target="f", target_mode=FILE)
    with pytest.raises(NotFound, match="no such directory"):
        place("f", source_is_directory=False, target="new/", target_mode=None)


class Sink(io.BytesIO):
    """Collects what a producer writes."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        return super().write(data)


def test_a_tree_there_and_back(tmp_path: Path) -> None:
    """Files, modes, times, links and hard links survive packing and unpacking under another name."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(os.urandom(100_000))
    (source / "sub" / "file").chmod(0o640)
    os.utime(source / "sub" / "file", (1_000_000_000, 1_000_000_000))
    (source / "sub" / "twin").hardlink_to(source / "sub" / "file")
    (source / "link").symlink_to("/etc/passwd")
    (source / "empty").mkdir(mode=0o700)
    os.mkfifo(source / "pipe")
    sink = Sink()
    pack(source, "packed", sink)
    sink.seek(0)
    assert unpack(sink, tmp_path, "copy") == []
    copy = tmp_path / "copy"
    assert (copy / "sub" / "file").read_bytes() == (source / "sub" / "file").read_bytes()
    found = (copy / "sub" / "file").stat()
    assert (stat.S_IMODE(found.st_mode), int(found.st_mtime), found.st_nlink) == (0o640, 1_000_000_000, 2)
    assert (copy / "link").readlink() == Path("/etc/passwd")
    assert stat.S_IMODE((copy / "empty").stat().st_mode) == 0o700
    assert stat.S_ISFIFO((copy / "pipe").stat().st_mode)


def archive(*entries: tuple[str, dict[str, object], bytes]) -> io.BytesIO:
    """Write a tar with whatever names and links are given."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name, fields, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for field, value in fields.items():
                setattr(entry, field, value)
            tar.addfile(entry, io.BytesIO(content))
    output.seek(0)
    return output


def link(name: str, target: str) -> tuple[str, dict[str, object], bytes]:
    return name, {"type": tarfile.SYMTYPE, "linkname": target}, b""


def hard(name: str, target: str) -> tuple[str, dict[str, object], bytes]:
    return name, {"type": tarfile.LNKTYPE, "linkname": target}, b""


HOSTILE = {
    "dots": archive(("r/../../canary/evil", {}, b"x")),
    "absolute": archive(("/canary/evil", {}, b"x")),
    "through a link": archive(link("r/l", "../canary"), ("r/l/evil", {}, b"x")),
    "through an absolute link": archive(link("r/l", "/"), ("r/l/canary/evil", {}, b"x")),
    "over a link": archive(link("r/l", "../../canary/precious"), ("r/l", {}, b"overwritten")),
    "hard link out": archive(hard("r/h", "../canary/precious"), ("r/h", {}, b"overwritten")),
    "hard link through a link": archive(link("r/l", "../canary"), hard("r/h", "r/l/precious")),
    "mode through a link": archive(
        link("r/l", "../../canary/precious"), ("r/l", {"mode": 0o777, "type": tarfile.DIRTYPE}, b"")
    ),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_archives(tmp_path: Path, attack: str) -> None:
    """No archive writes, links or changes anything outside of the target."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "precious").write_text("untouched")
    (canary / "precious").chmod(0o600)
    target = tmp_path / "target"
    target.mkdir()
    HOSTILE[attack].seek(0)
    try:
        unpack(HOSTILE[attack], target, "r")
    except (OSError, TrivetError):
        pass
    found = (canary / "precious").stat()
    assert (canary / "precious").read_text() == "untouched"
    assert (stat.S_IMODE(found.st_mode), found.st_nlink) == (0o600, 1)
    assert [path.name for path in canary.iterdir()] == ["precious"]


def test_set_id_bits_and_devices(tmp_path: Path) -> None:
    """Set-id bits are dropped unless owners are kept; devices are left out and told."""
    entries: tuple[tuple[str, dict[str, object], bytes], ...] = (
        ("r/su", {"mode": 0o4755}, b"x"),
        ("r/null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}, b""),
    )
    assert unpack(archive(*entries), tmp_path, "plain") == ["r/null"]
    assert stat.S_IMODE((tmp_path / "plain" / "su").stat().st_mode) == 0o755
    unpack(archive(*entries), tmp_path, "kept", keep_owner=True)
    assert stat.S_IMODE((tmp_path / "kept" / "su").stat().st_mode) == 0o4755


def test_nonsense_instead_of_an_archive(tmp_path: Path) -> None:
    """Something that isn't a tar is told so."""
    with pytest.raises(Corrupt, match="the archive cannot be read"):
        unpack(io.BytesIO(b"x" * 2000), tmp_path, "r")


def context_of(top: Path, dockerfile: str | None = None) -> tuple[str, dict[str, bytes]]:
    """Pack a build context; returns the Dockerfile's name and every file."""
    sink = Sink()
    source = _from_directory(Namespace(context=str(top), file=dockerfile))
    source.produce(sink)
    sink.seek(0)
    with tarfile.open(fileobj=sink) as tar:
        assert all(entry.uid == 0 and entry.uname == "" for entry in tar)
        files = {entry.name: tar.extractfile(entry) for entry in tar if entry.isreg()}
        return source.dockerfile, {name: content.read() for name, content in files.items() if content is not None}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "context"
    for name in ("Dockerfile", "app/main.py", "app/main.pyc", "secret/key", "secret/public", "docs/a.md"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    return top


def test_a_context_is_sent_whole(tree: Path) -> None:
    """Without an ignore file everything is sent."""
    name, files = context_of(tree)
    assert name == "Dockerfile"
    assert sorted(files) == ["Dockerfile", "app/main.py", "app/main.pyc", "docs/a.md", "secret/key", "secret/public"]


def test_ignored_files_stay_at_home(tree: Path) -> None:
    """What .dockerignore names isn't sent; exceptions are, and so are the Dockerfile and the ignore file themselves."""
    (tree / ".dockerignore").write_text(
        "# comment\n**/*.pyc\nsecret\n!secret/public\ndocs\nDockerfile\n.dockerignore\n"
    )
    _, files = context_of(tree)
    assert sorted(files) == [".dockerignore", "Dockerfile", "app/main.py", "secret/public"]


def test_a_dockerfile_from_elsewhere(tree: Path, tmp_path: Path) -> None:
    """A Dockerfile outside of the context travels under a name of its own, which the ignore file then hides."""
    (tree / ".dockerignore").write_text("docs\n")
    (tmp_path / "other").write_text("FROM scratch")
    name, files = context_of(tree, str(tmp_path / "other"))
    assert files[name] == b"FROM scratch"
    assert files[".dockerignore"].decode().splitlines() == ["docs", "", name, ".dockerignore"]
    assert "docs/a.md" not in files


def test_links_stay_links(tree: Path) -> None:
    """A symbolic link in a context is sent as one, never what it points to."""
    (tree / "link").symlink_to("/etc")
    _, files = context_of(tree)
    assert not any(name.startswith("link") for name in files)
