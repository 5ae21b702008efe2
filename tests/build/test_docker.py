"""The same Dockerfiles built by Docker: files and configuration have to be the same, case by case."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

import msgspec
import pytest
from tests.build.workshop import BASE, Content, File, Workshop, base_files, make_tar, merged, read_layer

from trivet.base.error import TrivetError

pytestmark = pytest.mark.needs("root", "dockerd", "docker")

SCRIPT = tarfile.TarInfo("s/run")
SCRIPT.mode, SCRIPT.uid = 0o755, 1234
FILES: dict[str, Content] = {
    "f": b"1",
    "g": b"22",
    "d/e/h": b"3",
    "d/i": b"4",
    "lf": "f",
    "ld": "d",
    "s/run": SCRIPT,
    "r/link": "../f",
    "r/dangling": "nowhere",
    "a.tgz": gzip.compress(make_tar({"in/x": b"x", "top": b"t"})),
    "a.tar": make_tar({"in/x": b"x"}),
    "sp ace/z": b"z",
    "x.txt": b"x",
    "y.txt": b"y",
}

CASES = [
    *("COPY f /x", "COPY f /x/", "COPY f x", "COPY f g /x/", "COPY d /x", "COPY d/ /x/", "COPY d/* /x/"),
    *("COPY *.txt /t/", "COPY lf /l", "COPY lf /l/", "COPY ld /l", "COPY ld/i /l/", "COPY f /tmp", "COPY f /lib"),
    *("COPY d /lib", "COPY d /lib/", "COPY f /lib/", "COPY r /r", 'COPY ["sp ace","/sp/"]', "COPY f /newdir/."),
    *("COPY --chown=7:8 d /x", "COPY --chown=app f /x", "COPY --chown=app:wheel s /x/", "COPY f d/i /etc/passwd/"),
    *("COPY d f /m/", "COPY ./d/../f /n", "COPY /f /n2", "COPY d/e/h /etc/passwd", "COPY d /x/..", "COPY f /a/b/c"),
    *("COPY missing /x", "COPY f g /x", "ADD a.tgz /x", "ADD a.tar /x/", "ADD a.tgz f /x/", "ADD *.t* /p/"),
    *("WORKDIR /w\nCOPY f .", "WORKDIR /w\nCOPY f ../x", "WORKDIR a\nWORKDIR b\nCOPY f ./", "WORKDIR $NOPE/a"),
    *("WORKDIR /x\\ y", "WORKDIR /a\nWORKDIR ../b/./c", "ENV P=/p\nWORKDIR $P/q\nCOPY f $P/r/"),
    *("ENV A=b C=\"d e\" F='$A' G=$A\\ x\nENV H $A y", "ENV A=1\nENV A=2 B=$A\nENV C=${A:-z} D=${N:-z} E=${A:+y}"),
    *('ENV E=\'it\'\'s\' F="a\\"b" G=a\\\\b H="\\a"', 'ENV X="${A:-"q"}"', "ENV PATH=/x:$PATH"),
    *("ARG X=1\nENV Y=$X\nARG X=2\nENV Z=${X}", "LABEL a=b c=\"d e\" 'f g'=h", 'LABEL a="x\\\n y"'),
    *("EXPOSE 80 443/tcp 53/udp", 'VOLUME /a /b\nVOLUME ["/c d"]', "STOPSIGNAL SIGKILL", "USER app\nENV X=$USER"),
    *("CMD echo $A", 'CMD ["a","b"]', 'ENTRYPOINT ["x"]', 'CMD ["y"]\nENTRYPOINT ["x"]', "ENTRYPOINT x y"),
    *('SHELL ["/bin/sh","-e","-c"]\nCMD foo', "HEALTHCHECK --interval=5m --timeout=3s CMD curl -f x || exit 1"),
    *('HEALTHCHECK CMD ["a","b"]', "HEALTHCHECK NONE", "ONBUILD RUN x"),
    *("FROM scratch\nCOPY --from=0 /etc/ /e/", "FROM scratch\nCOPY --from=0 /lib /l\nCOPY --from=0 /bin/sh /sh"),
    *("FROM scratch\nCOPY --from=0 /etc/g* /etc/passwd /z/", "FROM scratch AS b\nFROM base\nCOPY --from=0 / /all"),
]
CONFIG = (
    *("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "Labels", "ExposedPorts", "Volumes", "StopSignal"),
    *("Healthcheck", "OnBuild", "Shell"),
)


class Result(NamedTuple):
    """A built image, as far as builders should agree."""

    files: dict[str, tuple[object, ...]]
    config: dict[str, Any]


class Docker:
    """A dockerd of the test's own, without network."""

    def __init__(self, directory: Path) -> None:
        self._address = f"unix://{directory}/sock"
        log = (directory / "log").open("wb")
        places = [f"--data-root={directory}/data", f"--exec-root={directory}/exec", f"--pidfile={directory}/pid"]
        network = ["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        self.process = subprocess.Popen(
            ["dockerd", f"--host={self._address}", *places, *network], stdout=log, stderr=log, start_new_session=True
        )

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + 60
        while self("version", check=False).returncode:
            if time.monotonic() > deadline or self.process.poll() is not None:
                pytest.skip("dockerd does not start here")
            time.sleep(0.2)

    def stop(self) -> None:
        """End it, and wait for its end."""
        self.process.terminate()
        self.process.wait(30)

    def __call__(self, *arguments: str, input: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run the client with Docker's own builder, the one that needs no plug-in."""
        env = {**os.environ, "DOCKER_BUILDKIT": "0"}
        command = ["docker", "--host", self._address, *arguments]
        return subprocess.run(command, input=input, capture_output=True, check=check, env=env, timeout=120)

    def build(self, context: bytes) -> Result | None:
        """Build a context; None when Docker refuses."""
        built = self("build", "--no-cache", "-q", "-", input=context, check=False)
        if built.returncode:
            return None
        saved = self("save", built.stdout.decode().strip()).stdout
        with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
            (manifest,) = json.loads(_member(archive, "manifest.json"))
            config = json.loads(_member(archive, manifest["Config"]))["config"]
            layers = [read_layer(_member(archive, name)) for name in manifest["Layers"]]
        return Result(_comparable(merged(layers)), _set(config))


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    """A running dockerd that has the workshop's base image."""
    with ExitStack() as undo:
        directory = Path(tempfile.mkdtemp(prefix="tvd", dir="/tmp"))
        undo.callback(rmtree, directory, ignore_errors=True)
        docker = Docker(directory)
        undo.callback(docker.stop)
        docker.wait()
        docker("import", "-c", "ENV FROM_BASE=yes", "-c", 'CMD ["sh"]', "-", BASE, input=make_tar(base_files()))
        yield docker


@pytest.mark.parametrize("case", CASES)
def test_same_as_docker(workshop: Workshop, docker: Docker, case: str) -> None:
    """Both builders refuse a Dockerfile, or make the same files and the same configuration of it."""
    dockerfile = f"FROM {BASE}\n{case}\n"
    theirs = docker.build(make_tar({**FILES, "Dockerfile": dockerfile.encode()}))
    if theirs is None:
        with pytest.raises(TrivetError, match="Dockerfile:"):
            workshop.build(dockerfile, FILES)
        return
    built = workshop.build(dockerfile, FILES)
    ours = Result(_comparable(built.files), _set(json.loads(json.dumps(msgspec.to_builtins(built.config)))))
    assert ours.files == theirs.files
    assert ours.config == theirs.config


def _comparable(files: dict[str, File]) -> dict[str, tuple[object, ...]]:
    """Leave out what Docker makes for its containers, the programs, and times, which here are the base image's."""
    found: dict[str, tuple[object, ...]] = {}
    for path, (info, content) in files.items():
        if not path or path.startswith(("bin", "all/bin", "dev", "proc", "sys", "etc/hosts", "etc/resolv", "etc/mtab")):
            continue
        mode = 0 if info.issym() else info.mode & 0o7777
        found[path] = (info.type, mode, info.uid, info.gid, info.linkname, content)
    return found


def _set(config: dict[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in CONFIG if config.get(name)}


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file
    return file.read()
