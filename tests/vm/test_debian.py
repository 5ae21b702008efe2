"""One machine with Debian, made from this machine's package sources, from the first boot to the last word."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from tests.conftest import Daemon

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(2400),
    pytest.mark.needs("root", "mmdebstrap", "qemu-img", "ssh-keygen", "mcopy", "sfdisk", "grub-mkimage", "swtpm"),
]
PATIENCE = 1500.0


def ssh(key: Path, port: int, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line as the machine's user, logged in by key over the published port."""
    words = ["-i", str(key), "-p", str(port), "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30"]
    words += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "ann@127.0.0.1", line]
    return subprocess.run(["ssh", *words], capture_output=True, text=True)


def test_debian_from_packages(daemon: Daemon, tmp_path: Path) -> None:
    """It boots by Secure Boot with a TPM, takes user and key, is reached by its port, and its agent runs and copies."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    options = ["--image", "debian/12", "--secure-boot", "--tpm", "--user", "ann", "--ssh-key", f"{key}.pub"]
    options += ["--cpus", "2", "--disk", "6g", "-p", "127.0.0.1::22", "--start"]
    daemon.ok("vm", "create", "debian", *options, timeout=PATIENCE)
    try:
        port = daemon.client.instances.get("debian").ports[0].host_port
        deadline = time.monotonic() + PATIENCE
        while (done := ssh(key, port, "sudo -n id -u && cat /etc/hostname && df --output=size -B1G /")).returncode:
            assert time.monotonic() < deadline, f"{done.stderr}\n{daemon.ok('logs', 'debian')[-3000:]}"
            assert daemon.client.instances.get("debian").status == "running"
            time.sleep(5)
        assert done.stdout.split() == ["0", "debian", "1G-blocks", "6"]
        look = "test -c /dev/tpm0 && echo tpm; od -An -tu1 -j4 /sys/firmware/efi/efivars/SecureBoot-*"
        assert ssh(key, port, look).stdout.split() == ["tpm", "1"]
        while not daemon.client.machines.get("debian").agent:
            assert time.monotonic() < deadline
            time.sleep(3)
        _agent(daemon, tmp_path)
        daemon.ok("vm", "stop", "debian", timeout=300)
        assert daemon.client.instances.get("debian").exit_code == 0
        assert "login:" in daemon.ok("logs", "debian")
    finally:
        daemon.trivet("vm", "rm", "-f", "debian")


def _agent(daemon: Daemon, scratch: Path) -> None:
    """The guest agent's programs have streams and codes as on the other levels, and files go both ways."""
    found = daemon.client.machines.get("debian")
    addresses = [text.partition("/")[0] for text in daemon.client.instances.get("debian").networks[0].addresses]
    assert found.hostname == "debian"
    assert "Debian GNU/Linux 12" in found.system
    assert set(addresses) <= set(found.addresses)
    done = daemon.trivet(
        "exec", "-e", "A=b c", "-w", "/etc", "debian", "sh", "-c", 'echo "$A" $PWD; echo no >&2; exit 7'
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, b"b c /etc\n", b"no\n")
    assert daemon.trivet("exec", "debian", "no-such-program").returncode == 127
    assert daemon.ok("exec", "-u", "ann", "debian", "id", "-un") == "ann"
    assert daemon.trivet("exec", "-i", "debian", "wc", "-c", input=b"x" * 200_000).stdout == b"200000\n"
    assert "passes none" in daemon.trivet("exec", "-t", "debian", "sh").stderr.decode()
    content = bytes(range(256)) * 4096
    (scratch / "file").write_bytes(content)
    daemon.ok("cp", scratch / "file", "debian:/var/tmp/copy")
    daemon.ok("cp", "debian:/var/tmp/copy", scratch / "back")
    assert (scratch / "back").read_bytes() == content
    assert daemon.trivet("cp", "debian:/no/such", scratch / "x").returncode == 1
    assert "systemd" in daemon.ok("top", "debian")
