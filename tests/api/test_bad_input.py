"""Bad input: one sentence naming the object and the cause, a documented exit code, nothing left behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import BIN, Daemon

from trivet.cli.main import main

REFUSED, USAGE = 125, 2


def _refused(
    daemon: Daemon, *arguments: str | Path, code: int, says: list[str], env: dict[str, str] | None = None
) -> str:
    """Run a command that must fail: its complaint is one sentence (and hints) and holds the words in `says`."""
    before = daemon.client.instances.list(all=True)
    done = daemon.trivet(*arguments, env=env)
    complaint = done.stderr.decode()
    assert done.returncode == code, complaint
    sentences = [line for line in complaint.splitlines() if line.startswith("trivet: ") and "warning" not in line]
    assert len(sentences) == 1, complaint
    assert "Traceback" not in complaint
    for words in says:
        assert words in complaint
    assert daemon.client.instances.list(all=True) == before
    return complaint


def test_an_image_that_is_not_there(daemon: Daemon) -> None:
    """The image is named, and what to type next."""
    _refused(
        daemon,
        "run",
        "--pull",
        "never",
        "nowhere:1",
        code=REFUSED,
        says=["no such image: nowhere:1", "hint: trivet pull"],
    )
    _refused(daemon, "rmi", "nowhere:1", code=1, says=["no such image: nowhere:1"])


def test_a_registry_that_does_not_answer(daemon: Daemon) -> None:
    """It is named, within seconds."""
    with socket.socket() as silent:  # a port nobody listens on
        silent.bind(("127.0.0.1", 0))
        name = f"127.0.0.1:{silent.getsockname()[1]}"
        _refused(daemon, "pull", f"{name}/app:1", code=1, says=[f"registry {name}"])


@pytest.mark.parametrize("reference", ["UPPER", "a//b", "a:b:c", "a@sha256:123", "-x/y", "a" * 300])
def test_a_malformed_reference(daemon: Daemon, reference: str) -> None:
    """It is quoted with what is wrong."""
    _refused(daemon, "run", "--", reference, code=REFUSED, says=[reference[:40]])


def test_a_corrupt_blob_is_found_and_named(daemon: Daemon, busybox: str, tmp_path: Path) -> None:
    """`system check` reads every blob; an archive that lies about its content is refused."""
    archive = tmp_path / "image.tar"
    daemon.ok("save", "-o", archive, busybox)
    tree = tmp_path / "tree"
    tree.mkdir()
    subprocess.run(["tar", "-C", tree, "-xf", archive], check=True)
    blob = max((tree / "blobs" / "sha256").iterdir(), key=lambda file: file.stat().st_size)
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    broken = tmp_path / "broken.tar"
    subprocess.run(["tar", "-C", tree, "-cf", broken, "."], check=True)
    _refused(daemon, "load", "-i", broken, code=1, says=[blob.name[:12]])


def test_a_dockerfile_error_names_file_and_line(daemon: Daemon, busybox: str, tmp_path: Path) -> None:
    """`Dockerfile:3`, the word, and what was probably meant."""
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\n\nRUNN echo\n")
    _refused(daemon, "build", tmp_path, code=1, says=["Dockerfile:3", "RUNN"])


def test_a_failing_step_names_its_line_and_exit_code(daemon: Daemon, busybox: str, tmp_path: Path) -> None:
    """The last output of the step is shown too."""
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\nRUN echo almost; exit 9\n")
    complaint = _refused(daemon, "build", tmp_path, code=1, says=["Dockerfile:2", "9"])
    assert "almost" in complaint


def test_a_name_that_is_taken(daemon: Daemon, busybox: str) -> None:
    """The name is in the sentence; the first instance stays."""
    daemon.ok("run", "-d", "--name", "taken", busybox, "sleep", "100")
    _refused(daemon, "run", "--name", "taken", busybox, "true", code=REFUSED, says=["taken already exists"])
    daemon.ok("rm", "-f", "taken")


def test_a_port_that_is_taken_by_another_program(daemon: Daemon, busybox: str) -> None:
    """Port and owner are named; the instance is there to be started later, as with Docker."""
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        port = owner.getsockname()[1]
        done = daemon.trivet("run", "--rm", "-p", f"127.0.0.1:{port}:80", busybox, "true")
        assert done.returncode == REFUSED
        assert f"{port}/tcp" in done.stderr.decode()


def test_a_port_that_is_taken_by_another_instance(daemon: Daemon, busybox: str) -> None:
    """The owner is named."""
    daemon.ok("run", "-d", "--name", "owner", "-p", "127.0.0.1:18499:80", busybox, "sleep", "100")
    done = daemon.trivet("run", "--rm", "-p", "127.0.0.1:18499:80", busybox, "true")
    assert done.returncode == REFUSED
    assert "instance owner" in done.stderr.decode()
    daemon.ok("rm", "-f", "owner")


def test_a_host_path_that_is_missing(daemon: Daemon, busybox: str) -> None:
    """`--mount` doesn't make it; the path is named with the command that would."""
    says = ["/no/such/path", "hint: mkdir -p /no/such/path"]
    _refused(
        daemon, "run", "--mount", "type=bind,source=/no/such/path,target=/x", busybox, "true", code=REFUSED, says=says
    )


def test_a_program_that_is_missing_or_not_executable(daemon: Daemon, busybox: str) -> None:
    """127 and 126, as everywhere."""
    for level in ("process", "container"):
        missing = daemon.trivet("run", "--rm", "--isolation", level, busybox, "no-such-program")
        assert (missing.returncode, b"no-such-program" in missing.stderr) == (127, True)
        plain = daemon.trivet("run", "--rm", "--isolation", level, busybox, "/etc/passwd")
        assert (plain.returncode, b"/etc/passwd" in plain.stderr) == (126, True)


def test_an_image_for_another_architecture(daemon: Daemon, tmp_path: Path) -> None:
    """Both architectures are named."""
    tree = tmp_path / "layout"
    blobs = tree / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(value: object) -> dict[str, object]:
        raw = json.dumps(value).encode()
        digest = hashlib.sha256(raw).hexdigest()
        (blobs / digest).write_bytes(raw)
        return {"digest": f"sha256:{digest}", "size": len(raw)}

    config = put({"architecture": "s390x", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    config["mediaType"] = "application/vnd.oci.image.config.v1+json"
    manifest = put({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": []})
    names = {
        "org.opencontainers.image.ref.name": "foreign:1",
        "io.containerd.image.name": "docker.io/library/foreign:1",
    }
    index = {"schemaVersion": 2, "manifests": [{**manifest, "mediaType": manifest_type, "annotations": names}]}
    (tree / "index.json").write_text(json.dumps(index))
    (tree / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    archive = tmp_path / "foreign.tar"
    subprocess.run(["tar", "-C", tree, "-cf", archive, "."], check=True)
    loaded = daemon.trivet("load", "-i", archive)
    done = daemon.trivet("run", "foreign:1", "true") if loaded.returncode == 0 else loaded
    assert done.returncode in (1, REFUSED)
    complaint = done.stderr.decode()
    assert "s390x" in complaint
    assert "amd64" in complaint


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "-m", "lots", "x"],
        ["run", "-p", "99999:1", "x"],
        ["run", "-v", "relative", "x", "--network"],
        ["run", "--cap-add", "FLY", "busybox:test", "true"],
        ["run", "--isolation", "jail", "x"],
        ["run", "--cpus", "-1", "x"],
        ["run", "--user", "nobody-here", "busybox:test", "true"],
        ["run", "--ulimit", "nofile", "x"],
    ],
)
def test_a_wrong_value_names_its_option(daemon: Daemon, busybox: str, arguments: list[str]) -> None:
    """Nothing is made, and the exit code is never that of a program."""
    done = daemon.trivet(*arguments)
    assert done.returncode in (REFUSED, USAGE)
    assert "Traceback" not in done.stderr.decode()
    assert done.stderr.decode().startswith(("trivet: ", "usage: "))


def test_a_level_that_lacks_a_program_names_its_package(daemon: Daemon, short_path: Path) -> None:
    """An engine that can't find QEMU says so, and which package brings it."""
    programs = short_path / "bin"
    programs.mkdir()
    nft = shutil.which("nft")
    assert nft is not None
    (programs / "nft").symlink_to(nft)
    lame = Daemon(short_path / "root", short_path / "run")
    lame.run.mkdir()
    lame.start(path=str(programs))
    try:
        levels = {level.level: level for level in lame.client.system.info().levels}
        assert not levels["vm"].available
        assert "qemu-system" in " ".join(levels["vm"].missing)
        assert "apt-get install" in levels["vm"].hint
        lame.ok("import", "-q", "-", "busybox:test", input=busybox_tar())
        done = lame.trivet("run", "--isolation", "vm", "busybox:test", "true")
        assert done.returncode == REFUSED
        assert b"isolation level vm is not available here" in done.stderr
    finally:
        lame.clean()


@pytest.mark.parametrize(
    ("lacking", "says"),
    [
        ("fsopen", "it lacks fsopen(2), which came with Linux 5.2"),
        ("memfd_create", "it lacks memfd_create(2)"),
        ("mount_setattr", "it lacks mount_setattr(2)"),
        ("netlink:12", "it lacks nftables (protocol not supported)"),
    ],
)
def test_a_kernel_without_a_feature(short_path: Path, lacking: str, says: str) -> None:
    """On a kernel that is too old, or built without something, the engine says what is missing and leaves nothing."""
    run = short_path / "run"
    engine = [f"{BIN}/trivetd", f"--root={short_path}/root", f"--run-dir={run}", f"--listen=unix://{run}/trivet.sock"]
    command = [sys.executable, "-m", "tests.older", lacking, "--", *engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert says in done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["trivetd", "hint"]
    assert list(short_path.iterdir()) == []


def test_a_kernel_parameter_that_is_not_there(daemon: Daemon, busybox: str) -> None:
    """It is named, and the instance that asked for it is gone."""
    _refused(
        daemon,
        *("run", "--rm", "--sysctl", "net.ipv4.nothing_here=1", busybox, "true"),
        code=REFUSED,
        says=["net.ipv4.nothing_here", "no such file or directory"],
    )


def test_without_permission_the_command_says_so(daemon: Daemon, capfd: pytest.CaptureFixture[str]) -> None:
    """An ordinary user can't reach root's engine, and is told in one sentence."""
    arguments = ["--host", daemon.address, "ps"]
    assert main(arguments) == 0  # everything is imported now: the user may not be able to read it
    capfd.readouterr()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        os._exit(main(arguments))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    complaint = capfd.readouterr().err
    assert "permission denied" in complaint
    assert len([line for line in complaint.splitlines() if line.startswith("trivet: ")]) == 1
