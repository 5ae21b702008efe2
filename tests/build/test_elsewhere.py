"""ADD of URLs and Git repositories, contexts by name and from elsewhere (SECURITY row 40)."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.build.workshop import Workshop, make_tar

from trivet.build.error import BuildError
from trivet.build.remote import FetchFailed

pytestmark = pytest.mark.needs("root", "git")

WEB = {"tool": b"a tool", "pack.tar": make_tar({"in/x": b"x"})}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and one answer that names its file itself."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def end_headers(self) -> None:
        """Add a name to answers below /named."""
        if self.path.startswith("/named"):
            self.send_header("Content-Disposition", 'attachment; filename="../../evil/called"')
        super().end_headers()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server on loopback with the files of WEB."""
    directory = tmp_path_factory.mktemp("web")
    for name, content in {**WEB, "named": b"named"}.items():
        (directory / name).write_bytes(content)
        os.utime(directory / name, (1_600_000_000, 1_600_000_000))
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def git(directory: Path, *arguments: str) -> str:
    """Run git for a test's own repositories."""
    identity = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        identity |= {
            f"GIT_{who}_NAME": "t",
            f"GIT_{who}_EMAIL": "t@example.invalid",
            f"GIT_{who}_DATE": "1600000000 +0",
        }
    command = ["git", "-c", "protocol.file.allow=always", "-C", str(directory), *arguments]
    done = subprocess.run(command, env={**os.environ, **identity}, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(directory: Path, **files: str) -> str:
    """Make a commit in a repository, which is made if it isn't there; names have `/` written as `__`."""
    if not directory.exists():
        directory.mkdir()
        git(directory, "init", "-q", "-b", "main")
    for name, content in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    git(directory, "add", "-A")
    git(directory, "commit", "-q", "-m", "change")
    return git(directory, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A git server on loopback: its address and its directory."""
    base = tmp_path_factory.mktemp("forge")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as probe:
        port = probe.server_port
    command = ["git", "daemon", "--reuseaddr", "--export-all", f"--base-path={base}", "--listen=127.0.0.1"]
    with subprocess.Popen([*command, f"--port={port}"], stderr=subprocess.DEVNULL, start_new_session=True) as server:
        commit(base / "tool", file="one", sub__inner="inner")
        deadline = time.monotonic() + 10
        while subprocess.run(["git", "ls-remote", f"git://127.0.0.1:{port}/tool"], capture_output=True).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"git://127.0.0.1:{port}", base
        os.killpg(server.pid, 15)


def test_url(workshop: Workshop, web: str) -> None:
    """ADD fetches a URL: for root only, dated by the server, called as it is there, an archive left packed."""
    built = workshop.build(f"FROM base\nADD {web}/tool {web}/pack.tar /got/\nADD {web}/tool /other")
    tool = built.files["got/tool"]
    assert (tool.content, tool.info.mode, tool.info.mtime) == (b"a tool", 0o600, 1_600_000_000)
    assert built.files["got/pack.tar"].content == WEB["pack.tar"]
    assert built.files["other"].content == b"a tool"
    unpacked = workshop.build(f"FROM base\nADD --unpack=true --chown=7:8 --chmod=640 {web}/pack.tar /got/")
    assert (unpacked.files["got/in/x"].content, unpacked.files["got/in/x"].info.uid) == (b"x", 7)


def test_names_of_urls(workshop: Workshop, web: str) -> None:
    """A server may name a file but never a directory; where there is no name the target must have one."""
    assert "got/called" in workshop.build(f"FROM base\nADD {web}/named /got/").files
    with pytest.raises(BuildError, match="gives no file name"):
        workshop.build(f"FROM base\nADD {web}/ /got/")


def test_checksum(workshop: Workshop, web: str) -> None:
    """A wrong --checksum is told with the right one; with the right one the cache needs no network."""
    digest = "sha256:" + hashlib.sha256(WEB["tool"]).hexdigest()
    with pytest.raises(BuildError, match=f"has {digest}, not"):
        workshop.build(f"FROM base\nADD --checksum=sha256:{'0' * 64} {web}/tool /x")
    line = f"FROM base\nARG SUM={digest}\nADD --checksum=$SUM {web}/tool /x"
    workshop.build(line)
    assert workshop.build(line).cached == 1
    with pytest.raises(FetchFailed, match="answers 404"):
        workshop.build(f"FROM base\nADD {web}/missing /x")
    assert workshop.leftovers() == []


def test_repository(workshop: Workshop, forge: tuple[str, Path]) -> None:
    """ADD takes a branch, a tag, a commit or a subdirectory of a repository; --keep-git-dir keeps its history."""
    address, base = forge
    first = git(base / "tool", "rev-parse", "HEAD")
    git(base / "tool", "tag", "-f", "v1")
    commit(base / "tool", file="two")
    url = f"{address}/tool"
    lines = [f"{url} /head/", f"{url}#v1 /tag/", f"{url}#{first} /commit/", f"{url}#main:sub /sub/"]
    lines += [
        f"{url}?ref=v1&subdir=sub /query/",
        f"--checksum={first} {url}#v1 /sum/",
        f"--keep-git-dir=true {url}#v1 /k/",
    ]
    files = workshop.build("FROM base\n" + "\n".join(f"ADD {line}" for line in lines)).files
    assert [files[f"{name}/file"].content for name in ("head", "tag", "commit", "sum")] == [
        b"two",
        b"one",
        b"one",
        b"one",
    ]
    assert files["sub/inner"].content == files["query/inner"].content == b"inner"
    assert files["k/.git/HEAD"].content.decode().strip() == first
    assert not any(path.startswith("head/.git") for path in files)
    with pytest.raises(BuildError, match=f"is at commit {first}, not"):
        workshop.build(f"FROM base\nADD --checksum={'0' * 40} {url}#v1 /x/")
    assert workshop.leftovers() == []


def test_hostile_repository(workshop: Workshop, forge: tuple[str, Path], tmp_path: Path) -> None:
    """No link, filter, attribute, hook or submodule address of a repository gets at the host."""
    address, base = forge
    canary = tmp_path / "canary"
    canary.write_text("secret of the host")
    evil = base / "evil"
    attributes = "* filter=run\nhidden export-ignore\nstamp export-subst\n"
    config = f'[filter "run"]\n\tsmudge = touch {tmp_path}/ran\n'
    commit(evil, **{".gitattributes": attributes, ".gitconfig": config, "hidden": "h", "stamp": "$Format:%H$"})
    (evil / "out").symlink_to(tmp_path)
    (evil / "file").symlink_to(canary)
    (evil / ".git/hooks").mkdir(exist_ok=True)
    commit(evil, x="y")
    built = workshop.build(f"FROM base\nADD {address}/evil /e/")
    assert built.files["e/hidden"].content == b"h"
    assert built.files["e/stamp"].content == b"$Format:%H$"
    assert built.files["e/file"].info.issym()
    for subdirectory in ("out", "out/../../..", "file"):
        with pytest.raises(BuildError, match=r"has no directory|is not a directory"):
            workshop.build(f"FROM base\nADD {address}/evil#main:{subdirectory} /e/")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canary"]


@pytest.mark.parametrize(
    "address", ["ext::sh -c touch% /tmp/trivet-ran", "file:///etc", "-u/tmp/x", "git://-oProxyCommand=x/y"]
)
def test_hostile_submodule(workshop: Workshop, forge: tuple[str, Path], address: str) -> None:
    """A submodule whose address is a command, a file or an option is refused."""
    url, base = forge
    name = f"mod{hashlib.sha256(address.encode()).hexdigest()[:6]}"
    head = commit(base / name, a="a")
    (base / name / ".gitmodules").write_text(f'[submodule "m"]\n\tpath = m\n\turl = {address}\n')
    git(base / name, "update-index", "--add", "--cacheinfo", f"160000,{head},m")
    git(base / name, "add", ".gitmodules")
    git(base / name, "commit", "-q", "-m", "submodule")
    with pytest.raises(BuildError, match="is not allowed"):
        workshop.build(f"FROM base\nADD {url}/{name} /m/")
    assert not Path("/tmp/trivet-ran").exists()


def test_submodule(workshop: Workshop, forge: tuple[str, Path]) -> None:
    """An honest submodule comes along, by an address relative to its repository's."""
    url, base = forge
    head = commit(base / "part", p="p")
    commit(base / "whole", w="w")
    (base / "whole/.gitmodules").write_text('[submodule "m"]\n\tpath = m\n\turl = ../part\n')
    git(base / "whole", "update-index", "--add", "--cacheinfo", f"160000,{head},m")
    git(base / "whole", "add", ".gitmodules")
    git(base / "whole", "commit", "-q", "-m", "submodule")
    files = workshop.build(f"FROM base\nADD {url}/whole /m/").files
    assert (files["m/w"].content, files["m/m/p"].content) == (b"w", b"p")


@pytest.mark.parametrize(
    "source",
    [
        "git://127.0.0.1/x#--upload-pack=touch",
        "ssh://-oProxyCommand=touch/x",
        "git@-x:y",
        "git://h/x#a..b",
        "ssh://a b/x",
    ],
)
def test_options_in_addresses(workshop: Workshop, source: str) -> None:
    """What Git or ssh would take for an option is refused before either runs."""
    with pytest.raises(BuildError, match=r"not allowed|no .* in the build context"):
        workshop.build(f'FROM base\nADD ["{source}", "/x/"]')


def test_named_contexts(workshop: Workshop, web: str, forge: tuple[str, Path]) -> None:
    """A name of --build-context takes the place of a stage or an image: with an image, a tar, a repository."""
    contexts = {"tools": "docker-image://base", "src": f"{forge[0]}/tool", "files": f"{web}/pack.tar"}
    dockerfile = "FROM nowhere.invalid/x AS tools\nFROM tools\nCOPY --from=src file /file\nCOPY --from=files in /in"
    built = workshop.build(f"{dockerfile}\nRUN --mount=from=files,source=in/x,target=/y cat /y", contexts=contexts)
    assert (built.files["in/x"].content, built.output) == (b"x", "x")
    assert "file" in built.files
    with pytest.raises(BuildError, match="that context is files, not an image"):
        workshop.build("FROM files", contexts=contexts)


def test_remote_context(workshop: Workshop, forge: tuple[str, Path]) -> None:
    """The whole context may be a directory of a repository."""
    commit(forge[1] / "app", ctx__Dockerfile="FROM base\nCOPY . /app/\n", ctx__f="f", other="o")
    built = workshop.build_remote(f"{forge[0]}/app#main:ctx")
    assert set(built.files) >= {"app/f", "app/Dockerfile"}
