"""The machine: its command line as golden files (TRIVET_REGENERATE=1 rewrites them; then read the diff)."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from trivet.base.error import Unsupported
from trivet.hypervisor.device.device import option
from trivet.hypervisor.machine import MEBIBYTE, Acceleration, Machine, command_line
from trivet.isolation import guest, machine
from trivet.isolation.machine import Host
from trivet.isolation.plan import (
    Address,
    Attachment,
    File,
    Level,
    Limits,
    Log,
    Mount,
    Plan,
    Program,
    Root,
    Security,
)
from trivet.kernel.cgroup_record import Write
from trivet.launch.operation import Background, Bind, Exec, Operation, encode

GOLDEN = Path(__file__).parent / "golden" / "machine"

HOST = Host(
    qemu="/usr/bin/qemu-system-x86_64",
    virtiofsd="/usr/lib/qemu/virtiofsd",
    acceleration=Acceleration.EMULATION,
    kernel="/cache/kernel/6.1.0/image",
    initramfs="/cache/initramfs-1",
    cpus=8,
    most=32 << 30,
)
PLAN = Plan(
    id="0123456789ab",
    name="web-1",
    level=Level.VM,
    program=Program(argv=("/bin/server", "--port", "80"), env=("PATH=/bin",), user="www"),
    root=Root(form="drive", lowers=("/image/a,b.erofs",), upper="/instance/upper.ext4"),
    directory="/run/trivet/0123",
    cgroup="trivet/0123456789ab",
    log=Log(path="/log/0123"),
    security=Security(capabilities=("CAP_CHOWN",), seccomp="unconfined"),
    hostname="web-1",
)
RICH = msgspec.structs.replace(
    PLAN,
    mounts=(
        Mount(kind="bind", source="/srv/data", target="/data"),
        Mount(kind="tmpfs", target="/cache", size=1 << 20),
        Mount(kind="bind", source="/srv/secret", target="/etc/secret", read_only=True),
    ),
    files=(File(target="/etc/hosts", source="/instance/hosts", content=b"127.0.0.1 localhost\n"),),
    attachments=(
        Attachment(
            kind="tap",
            network="bridge",
            device="tv0123",
            mac="02:00:00:00:00:01",
            addresses=(Address(address="10.1.0.2/16", gateway="10.1.0.1"),),
        ),
    ),
    limits=Limits(memory=64 * MEBIBYTE, cpus=1.5, pids=50),
)


def steps(plan: Plan) -> list[Operation]:
    return machine.launch(plan, HOST, (Write("/sys/fs/cgroup/memory/x/tasks", "0"),), "", ("/sys/fs/cgroup/memory/x",))


def agrees(name: str, lines: list[str]) -> None:
    path, text = GOLDEN / name, "\n".join(lines) + "\n"
    if os.environ.get("TRIVET_REGENERATE"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize(("name", "plan"), [("plain", PLAN), ("rich", RICH)])
def test_command_line_is_the_golden_one(name: str, plan: Plan) -> None:
    """A plan means exactly the QEMU command line that was read and approved."""
    agrees(f"{name}-argv", list(command_line(machine.machine(plan, HOST))))


@pytest.mark.parametrize(("name", "plan"), [("plain", PLAN), ("rich", RICH)])
def test_operations_are_the_golden_ones(name: str, plan: Plan) -> None:
    """What host and guest do for a plan is exactly what was read and approved."""
    outside = [operation.describe() for operation in steps(plan) if not isinstance(operation, Exec)]
    agrees(f"{name}-host", outside)
    agrees(f"{name}-guest", [operation.describe() for operation in guest.launch(plan)])


def test_acceleration_changes_only_accelerator_and_cpu() -> None:
    """With hardware acceleration the same machine has the host's CPU and no translation buffer."""
    slow = command_line(machine.machine(RICH, HOST))
    fast = command_line(machine.machine(RICH, msgspec.structs.replace(HOST, acceleration=Acceleration.KVM)))
    assert set(fast) - set(slow) == {"kvm", "host", fast[fast.index("-append") + 1]}


def test_small_memory_limit_raises_the_machine_and_binds_the_program() -> None:
    """A limit below what a kernel needs gives a larger machine whose cgroup holds the program to it."""
    assert machine.memory(RICH) == machine.SMALLEST_MEMORY
    written = [operation.describe() for operation in guest.launch(RICH)]
    assert any("memory.max" in line and str(64 * MEBIBYTE) in line for line in written)


def test_read_only_mount_is_read_only_on_the_host() -> None:
    """What the guest may not write to is staged read-only, where no guest can change that."""
    binds = [operation for operation in steps(RICH) if isinstance(operation, Bind)]
    staged = [(bind.source, bind.attributes & 1) for bind in binds if bind.source.startswith("/srv")]
    assert staged == [("/srv/data", 0), ("/srv/secret", 1)]


def test_no_shared_mount_needs_no_file_server() -> None:
    """A machine without bind mounts has neither virtiofsd nor shared memory."""
    assert not any(isinstance(operation, Background) for operation in steps(PLAN))
    assert not any("memfd" in word for word in command_line(machine.machine(PLAN, HOST)))


@pytest.mark.parametrize("kind", ["host", "netns"])
def test_foreign_network_is_refused(kind: str) -> None:
    """A machine can't use the host's network or somebody's namespace, and says so by name."""
    attachment = msgspec.convert({"kind": kind, "network": "n"}, Attachment)
    with pytest.raises(Unsupported, match="web-1 at level vm cannot use network"):
        machine.machine(msgspec.structs.replace(PLAN, attachments=(attachment,)), HOST)


def test_commas_in_paths_are_doubled() -> None:
    """QEMU ends an option's value at a comma, unless it is doubled."""
    assert option("file", filename="a,b", read_only=True) == "file,filename=a,,b,read-only=on"


def test_guest_plan_has_a_wire_form() -> None:
    """The guest's plan can be encoded, also with bytes in it."""
    assert encode(guest.launch(RICH)).startswith(b"TRVPLAN1")


def test_machine_without_an_agent_is_a_probe() -> None:
    """The agent of a machine without a port is told to greet and power off."""
    bare = msgspec.structs.replace(machine.machine(PLAN, HOST), agent=None)
    assert isinstance(bare, Machine)
    words = command_line(bare)
    assert words[words.index("-append") + 1].split()[-1] == "probe"
