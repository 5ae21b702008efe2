"""Machines with an operating system of their own, through the command: a tiny system, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tests.conftest import BIN, Daemon
from tests.vm.tiny import initrd

pytestmark = [pytest.mark.vm, pytest.mark.needs("root", "qemu-system-x86_64", "qemu-img", "mcopy", "mkfs.vfat")]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPPTTqz0yiF2tM5m+ad+8ae6EULevZWhVsgkgWf0CIG+ test"
PATIENCE = 120.0


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """An engine that may be killed."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        made = Daemon(tmp_path_factory.mktemp("machines"), run)
        undo.callback(made.clean)
        made.start()
        yield made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that make a machine the tiny system."""
    kernel, system = initrd(tmp_path_factory.mktemp("tiny") / "initrd")
    options = ["--kernel", str(kernel), "--initrd", str(system), "--append", "console=ttyS0 quiet tsc=reliable"]
    return [*options, "--memory", "256m", "--disk", "1g", "--ssh-key", KEY, "--network", "none"]


def said(engine: Daemon, name: str, text: str) -> str:
    """Wait until a machine's console has said something; all it said."""
    deadline = time.monotonic() + PATIENCE
    while text not in (log := engine.ok("logs", name)):
        assert time.monotonic() < deadline, f"{name} never said {text!r}:\n{log[-3000:]}"
        time.sleep(0.3)
    return log


def asked(engine: Daemon, name: str, line: str, answer: str) -> None:
    """Type a line on the serial console until the answer is there."""
    command = [str(BIN / "trivet"), "vm", "console", name]
    console = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, "TRIVET_HOST": engine.address}
    )
    try:
        assert console.stdin is not None
        deadline = time.monotonic() + PATIENCE
        while answer not in engine.ok("logs", name):
            assert time.monotonic() < deadline
            console.stdin.write(f"\n{line}\n".encode())
            console.stdin.flush()
            time.sleep(1)
    finally:
        console.kill()
        console.wait()


def test_a_machine_lives_and_is_switched_off(engine: Daemon, tiny: list[str]) -> None:
    """Its disks are as asked for, its console answers, it outlives the engine, and the power button ends it cleanly."""
    engine.ok("vm", "create", "box", *tiny, "--add-disk", "data:64m,iops=500,rate=20m", "--watchdog", "reset")
    engine.ok("vm", "start", "box")
    log = said(engine, "box", "tiny# ")
    assert "tiny: vda root 2097152 0" in log
    assert "tiny: vdb data 131072 0" in log
    assert "tiny: vdc seed" in log
    assert '"local-hostname":"box"' in log
    assert "tiny: bios" in log
    engine.kill()
    engine.start()
    assert engine.client.instances.get("box").status == "running"
    asked(engine, "box", "echo answer $((6*7))", "answer 42")
    picture = Path(engine.root, "box.png")
    engine.ok("vm", "screenshot", "box", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    engine.ok("vm", "send-key", "box", "ctrl-l", "f1")
    engine.ok("vm", "type", "-e", "box", "Hello, World!")
    engine.ok("vm", "stop", "box")
    ended = engine.client.instances.get("box")
    assert (ended.status, ended.exit_code) == ("exited", 0)
    assert "tiny: button pressed" in engine.ok("logs", "box")
    assert "trivet vm start box" in engine.trivet("cp", "box:/etc/passwd", "-").stderr.decode()


def test_it_starts_again_and_pauses(engine: Daemon, tiny: list[str]) -> None:
    """A machine comes back from off with its disk, stands still while paused, and is reset on request."""
    engine.ok("vm", "start", "box")
    said(engine, "box", "button pressed")
    before = engine.ok("logs", "box").count("tiny: up with")
    deadline = time.monotonic() + PATIENCE
    while engine.ok("logs", "box").count("tiny: up with") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert before in (1, 2)
    engine.ok("pause", "box")
    assert engine.client.machines.get("box").run_state == "paused"
    engine.ok("unpause", "box")
    engine.ok("vm", "reboot", "--force", "box")
    while engine.ok("logs", "box").count("tiny: up with") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    engine.ok("vm", "stop", "--force", "box")
    assert engine.client.instances.get("box").exit_code == 137
    engine.ok("vm", "rm", "box")
    assert list(Path(engine.root, "snapshot/disk/instance").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "the machine has nothing to boot"),
        (["--image", "debian/99"], "it is no release of Debian"),
        (["--kernel", "/nowhere"], "/nowhere is no file of the engine's host"),
        (["--boot", "network", "--ssh-key", "ssh-ed25519 AAAA\nroot"], "is no public SSH key"),
        (["--boot", "network", "--add-disk", "root:1g"], "a disk named root is there already"),
        (["--boot", "network", "--add-disk", "a:1g", "--add-disk", "a:1g"], "a disk named a is there already"),
        (["--boot", "network", "--add-disk", "../x:1g"], "is no disk"),
        (["--boot", "network", "--add-disk", "a:5"], "is no disk"),
        (["--boot", "floppy"], "is no order of disk, cdrom and network"),
        (["--boot", "network", "--network", "host"], "network host is not possible at level vm"),
    ],
)
def test_what_cannot_be_is_refused(engine: Daemon, options: list[str], complaint: str) -> None:
    """A machine that can't be is refused in one sentence, and nothing of it stays."""
    done = engine.trivet("vm", "create", "wrong", *options)
    assert done.returncode in (1, 2)
    assert complaint in done.stderr.decode()
    assert engine.trivet("vm", "info", "wrong").returncode == 1


def test_disks_come_grow_and_go(engine: Daemon, tiny: list[str]) -> None:
    """A disk is plugged in with its limits, grows before the guest's eyes, is unplugged, and nothing of it stays."""
    engine.ok("vm", "create", "plug", *tiny, "--start")
    said(engine, "plug", "tiny# ")
    engine.ok("vm", "disk", "add", "plug", "data:64m,iops=900")
    engine.ok("vm", "disk", "resize", "plug", "data:96m")
    engine.ok("vm", "disk", "resize", "plug", "root:2g")
    asked(engine, "plug", "echo sizes $(cat /sys/block/vda/size) $(cat /sys/block/vdc/size)", "sizes 4194304 196608")
    assert "cannot shrink" in engine.trivet("vm", "disk", "resize", "plug", "root:1g").stderr.decode()
    assert "it is what the machine boots" in engine.trivet("vm", "disk", "rm", "plug", "root").stderr.decode()
    assert "has no disk other" in engine.trivet("vm", "disk", "rm", "plug", "other").stderr.decode()
    engine.ok("vm", "disk", "rm", "plug", "data")
    asked(engine, "plug", "echo left $(ls /sys/block | tr '\\n' ' ')", "left vda vdb")
    assert [disk.name for disk in engine.client.machines.get("plug").disks] == ["root"]
    home = Path(engine.client.machines.get("plug").disks[0].path).parent
    assert [path.name for path in home.iterdir()] == ["root.qcow2"]


def test_it_goes_back_to_a_snapshot_with_memory(engine: Daemon, tiny: list[str]) -> None:
    """What the guest had in memory and on disks comes back, also from off; a clone of one that is off is another."""
    asked(engine, "plug", "echo before > /word; dd if=/word of=/dev/vda 2>/dev/null; sync; echo wrote $?", "wrote 0")
    engine.ok("snapshot", "plug", "then")
    asked(engine, "plug", "echo after > /word; dd if=/word of=/dev/vda 2>/dev/null; sync; cat /word", "\nafter")
    engine.ok("snapshot", "revert", "plug", "then")
    asked(engine, "plug", "echo now $(cat /word) $(head -c 6 /dev/vda)", "now before before")
    assert "cannot clone running machine" in engine.trivet("clone", "plug").stderr.decode()
    engine.ok("vm", "stop", "plug")
    engine.ok("clone", "plug", "--name", "twin")
    engine.ok("vm", "start", "twin")
    said(engine, "twin", "tiny# ")
    asked(engine, "twin", "echo twin $(head -c 6 /dev/vda)", "twin before")
    engine.ok("vm", "rm", "-f", "twin")
    engine.ok("snapshot", "revert", "plug", "then")
    asked(engine, "plug", "echo again $(cat /word)", "again before")
    engine.ok("vm", "rm", "-f", "plug")


def test_its_screen_is_shown_to_who_knows_the_token(engine: Daemon, tiny: list[str]) -> None:
    """The page of `vm view` is there for all, picture and keyboard only with the token."""
    engine.ok("vm", "create", "seen", *tiny, "--start")
    command = [str(BIN / "trivet"), "vm", "view", "seen"]
    view = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TRIVET_HOST": engine.address}
    )
    try:
        assert view.stdout is not None
        address, _, token = view.stdout.readline().strip().partition("#")
        assert b"<img" in urlopen(address).read()
        with pytest.raises(HTTPError):
            urlopen(address + "screen.png")
        assert urlopen(Request(address + "screen.png", headers={"Token": token})).read().startswith(b"\x89PNG")
        press = Request(address + "keys", b'{"keys": ["ctrl+l"]}', {"Token": token})
        assert urlopen(press).status == 200
        with pytest.raises(HTTPError):
            urlopen(Request(address + "keys", b'{"keys": ["nonsense"]}', {"Token": token}))
    finally:
        view.terminate()
        view.wait()
        engine.ok("vm", "rm", "-f", "seen")


def test_backups_hold_what_changed(engine: Daemon, tiny: list[str], tmp_path: Path) -> None:
    """The second backup is of the changed blocks, also of a machine that is off; any point is restored, and proven."""
    store = tmp_path / "store"
    engine.ok("vm", "create", "kept", *tiny, "--start")
    said(engine, "kept", "tiny# ")
    writing = "| dd of=/dev/vda bs=512 seek=9 2>/dev/null; sync; echo wrote"
    asked(engine, "kept", f"echo first {writing} $((0+1))", "wrote 1")
    engine.ok("vm", "backup", "create", "kept", store)
    asked(
        engine, "kept", "echo second | dd of=/dev/vda bs=512 seek=9 2>/dev/null; sync; echo wrote $((1+1))", "wrote 2"
    )
    engine.ok("vm", "backup", "create", "kept", store)
    engine.ok("vm", "stop", "kept")
    engine.ok("vm", "backup", "create", "kept", store)
    points = engine.client.machines.backups(str(store))
    assert [(point.number, point.full, point.quiet) for point in points] == [
        (1, True, False),
        (2, False, False),
        (3, False, True),
    ]
    reading = "echo it is $(dd if=/dev/vda bs=512 skip=9 count=1 2>/dev/null | head -n 1)"
    for number, word in (("1", "it is first"), ("3", "it is second")):
        engine.ok("vm", "restore", store, f"again-{number}", "--point", number, "--start")
        asked(engine, f"again-{number}", reading, word)
        engine.ok("vm", "rm", "-f", f"again-{number}")
    assert "boots" in engine.ok("vm", "backup", "verify", store, "--expect", "tiny# ")
    assert [found.name for found in engine.client.instances.list(all=True) if found.name.startswith("verify")] == []
    engine.ok("vm", "rm", "kept")


@pytest.mark.parametrize(
    ("tampering", "complaint"),
    [
        (lambda text: text.replace('"root"', '"../../etc/shadow"'), "which cannot be"),
        (lambda text: text.replace('"full": true', '"full": false', 1), "begins with changes"),
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: text.replace('"id": "', '"id": "0', 1), "is not there"),
    ],
)
def test_tampered_backups_are_refused(
    engine: Daemon, tiny: list[str], tmp_path: Path, tampering: Callable[[str], str], complaint: str
) -> None:
    """A directory that names other files, or lacks some, makes no machine."""
    engine.ok("vm", "create", "victim", *tiny)
    engine.ok("vm", "backup", "create", "victim", tmp_path)
    manifest = tmp_path / "backup.json"
    manifest.write_text(tampering(manifest.read_text()))
    done = engine.trivet("vm", "restore", tmp_path, "evil")
    assert complaint in done.stderr.decode()
    assert engine.trivet("inspect", "evil").returncode == 1
    engine.ok("vm", "rm", "victim")


def test_a_machine_goes_elsewhere_and_comes_back(engine: Daemon, tiny: list[str], tmp_path: Path) -> None:
    """An OVA brings all disks back with their content, a committed image begins further machines, block by block."""
    engine.ok("vm", "create", "there", *tiny, "--add-disk", "data:16m", "--cpus", "2")
    disks = {disk.name: Path(disk.path) for disk in engine.client.machines.get("there").disks}
    for name, path in disks.items():
        raw = tmp_path / f"{name}.raw"
        raw.write_bytes(name.encode() * 65536)
        subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    engine.ok("vm", "export", "there", tmp_path / "there.ova")
    engine.ok("vm", "import", tmp_path / "there.ova", "back")
    back = engine.client.machines.get("back")
    assert (back.cpus, back.memory, [disk.size for disk in back.disks]) == (2, 256 << 20, [1 << 30, 16 << 20])
    engine.ok("vm", "export", "back", tmp_path / "again.raw")
    engine.ok("vm", "export", "there", tmp_path / "root.vmdk")
    files = [str(tmp_path / "again.raw"), str(tmp_path / "root.vmdk")]
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "vmdk", *files], check=True, capture_output=True)
    assert (tmp_path / "again.raw").read_bytes()[: 4 * 65536] == b"root" * 65536
    engine.ok("vm", "commit", "there", "golden:1")
    engine.ok("vm", "create", "child", "--image", "golden:1", "--no-cloud-init", "--disk", "2g")
    engine.ok("vm", "export", "child", tmp_path / "child.raw")
    assert (tmp_path / "child.raw").stat().st_size == 2 << 30
    with (tmp_path / "child.raw").open("rb") as file:
        assert file.read(4 * 65536) == b"root" * 65536
    assert "used by child" in engine.trivet("rmi", "golden:1").stderr.decode()
    assert engine.trivet("run", "golden:1").returncode == 125
    engine.ok("vm", "rm", "there", "back", "child")
    engine.ok("rmi", "golden:1")
