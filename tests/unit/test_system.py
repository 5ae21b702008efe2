"""A machine with a system of its own: its command line as golden files, keyboard, what cloud-init and guests say."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import msgspec
import pytest

from trivet.base.error import Corrupt, InvalidArgument, Unsupported
from trivet.client.schema import InstanceRequest, MountRequest
from trivet.client.schema_machine import MachineRequest, RestoreRequest, UsbRequest
from trivet.client.schema_network import PortRequest
from trivet.engine.machine import cloud, keyboard, restore
from trivet.engine.machine.point import Backups, Point
from trivet.engine.snapshot.disk import DiskSnapshotter
from trivet.hypervisor.machine import Acceleration
from trivet.hypervisor.system import command_line
from trivet.isolation import computer, errand_command, seed
from trivet.isolation.hardware import Answer, Cdrom, Direct, Disk, Hardware, Seed, Usb
from trivet.isolation.machine import Host
from trivet.isolation.plan import Address, Attachment, File, Level, Log, Mount, Plan, Program, Root, Security

GOLDEN = Path(__file__).parent / "golden" / "machine"
HOST = Host(
    qemu="/usr/bin/qemu-system-x86_64",
    virtiofsd="",
    acceleration=Acceleration.EMULATION,
    kernel="",
    initramfs="",
    cpus=8,
    firmware="/usr/share/OVMF/code.fd",
    swtpm="/usr/bin/swtpm",
)
SIX = Address(address="fd00::2/64", gateway="fd00::1")
PLAN = Plan(
    id="0123456789abcdef0123456789abcdef",
    name="web,1",
    level=Level.VM,
    program=Program(argv=("bios",)),
    root=Root(form="disk", lowers=("/base/a,b.raw",), upper="/disk"),
    directory="/run/trivet/0123",
    cgroup="trivet/0123",
    log=Log(path="/log/0123"),
    security=Security(capabilities=()),
    hostname="web-1",
    files=(File(target="/etc/resolv.conf", source="/x", content=b"nameserver 10.0.0.53\noptions ndots:0\n"),),
    attachments=(
        Attachment(
            kind="tap",
            network="bridge",
            device="tap0",
            mac="02:00:00:00:00:01",
            addresses=(Address(address="10.0.0.2/24", gateway="10.0.0.1"), SIX),
        ),
    ),
    hardware=Hardware(home="/disk", disks=(Disk(name="root", path="/disk/root.qcow2", base="/base/a,b.raw"),)),
)
RICH = msgspec.structs.replace(
    PLAN,
    hardware=Hardware(
        home="/disk",
        firmware="uefi",
        secure_boot=True,
        tpm=True,
        watchdog="reset",
        disks=(
            Disk(name="root", path="/disk/root.qcow2", iops=500, rate=1 << 20),
            Disk(name="data", path="/disk/data.qcow2", port="slot1"),
        ),
        cdroms=(Cdrom(path="/iso/a,b.iso"),),
        seed=Seed(vendor="#cloud-config\n{}\n"),
        direct=Direct(kernel="/boot/kernel", initrd="/boot/initrd", parameters="console=ttyS0"),
        answers=(Answer("preseed.cfg", "x"),),
        boot=("cdrom", "disk", "network"),
    ),
)


SHARING = msgspec.structs.replace(
    PLAN,
    mounts=(Mount(kind="bind", source="/srv/a,b", target="/srv/it's", read_only=True),),
    hardware=msgspec.structs.replace(
        RICH.hardware or Hardware(home=""),
        usb=(Usb(name="usb1", path="/a"), Usb(name="usb2", path="/b", read_only=True)),
    ),
)


@pytest.mark.parametrize(("name", "plan"), [("system-plain", PLAN), ("system-rich", RICH), ("system-sharing", SHARING)])
def test_the_command_line_is_the_golden_one(name: str, plan: Plan) -> None:
    """QEMU is told every driver, format and base by name, and nothing else than the plan says."""
    path = GOLDEN / f"{name}-argv"
    text = "\n".join(command_line(computer.system(plan, HOST))) + "\n"
    if os.environ.get("TRIVET_REGENERATE"):
        path.write_text(text)
    assert text == path.read_text()


def test_cloud_init_is_told_addresses_and_resolvers() -> None:
    """Both families' default routes and the resolver of the instance's own resolv.conf are told."""
    plan = msgspec.structs.replace(PLAN, hardware=RICH.hardware)
    told = msgspec.json.decode(seed.documents(plan)["network-config"])["ethernets"]["eth0"]
    assert told["addresses"] == ["10.0.0.2/24", "fd00::2/64"]
    assert told["routes"] == [{"to": "0.0.0.0/0", "via": "10.0.0.1"}, {"to": "::/0", "via": "fd00::1"}]
    assert told["nameservers"] == {"addresses": ["10.0.0.53"]}
    assert told["match"] == {"macaddress": "02:00:00:00:00:01"}


def test_cloud_init_mounts_what_is_shared() -> None:
    """Beside what it was told at the beginning it has a command for every boot; nobody else's is touched."""
    documents = seed.documents(SHARING)
    told = msgspec.json.decode(documents["vendor-data"].removeprefix(b"#cloud-config\n"))
    [[shell, flag, line]] = told["bootcmd"]
    assert (shell, flag) == ("sh", "-c")
    words = shlex.split(line.replace("{", " ").replace("}", " ").replace(";", " "))
    assert words[-7:] == ["mount", "-t", "virtiofs", "-o", "ro", "srv-it's", "/srv/it's"]
    assert documents["user-data"] == b"#cloud-config\n{}\n"


def test_users_keys_and_packages_become_vendor_data() -> None:
    """What was asked for is trivet's part; a user's own user-data stands beside it untouched."""
    wish = MachineRequest(
        user="ann", ssh_keys=["ssh-ed25519 AAAA a"], password="$2b$x", packages=["vim"], user_data="#!/x"
    )
    found = cloud.seed(wish)
    assert found is not None
    told = msgspec.json.decode(found.vendor.removeprefix("#cloud-config\n"))
    assert told["users"][0]["name"] == "ann"
    assert told["users"][0]["ssh_authorized_keys"] == ["ssh-ed25519 AAAA a"]
    assert told["packages"] == ["vim"]
    assert found.user == "#!/x"
    assert cloud.seed(MachineRequest(cloud_init=False)) is None


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("ctrl-alt-delete", ["ctrl", "alt", "delete"]),
        ("ctrl+alt+f2", ["ctrl", "alt", "f2"]),
        ("A", ["shift", "a"]),
        ("-", ["minus"]),
        ("enter", ["ret"]),
    ],
)
def test_chords_are_read(words: str, keys: list[str]) -> None:
    """People's names of keys are understood, joined by minus or plus."""
    assert keyboard.chord(words) == keys


def test_what_is_not_on_the_keyboard_is_refused() -> None:
    """Every printable ASCII character can be typed, others are named."""
    assert len(keyboard.text("".join(map(chr, range(32, 127))))) == 95
    with pytest.raises(InvalidArgument, match="not on a US keyboard"):
        keyboard.text("ä")
    with pytest.raises(InvalidArgument):
        keyboard.chord("ctrl-nonsense")


def test_the_guests_answers_are_not_believed() -> None:
    """A stat that isn't one is refused, lines of ps that aren't are left out, a terminal can't be had."""
    told = errand_command.command(PLAN, Program(argv=("/etc/x y",), builtin="stat"))
    assert told.arguments == ("/etc/x y",)
    assert told.change is not None
    assert msgspec.json.decode(told.change(b"81a4 5 1700000000.5\n"))["name"] == "x y"
    with pytest.raises(Corrupt):
        told.change(b"a b c\n")
    rows = errand_command.command(PLAN, Program(argv=("/proc",), builtin="processes")).change
    assert rows is not None
    assert rows(b"1 0 0 10 2 /sbin/init x\nnonsense\n") == b"1 0 0 10000 2000 /sbin/init x\n"
    with pytest.raises(Unsupported, match="passes none"):
        errand_command.command(PLAN, Program(argv=("sh",), terminal=True))


def test_what_a_killed_engine_was_making_goes(tmp_path: Path) -> None:
    """A machine's disks that were never finished are gone when the next engine looks."""
    with DiskSnapshotter(tmp_path).making.draft() as draft:
        (draft / "disk").mkdir()
        left = tmp_path / "making" / "left"
        draft.rename(left)
    found = DiskSnapshotter(tmp_path)
    assert not left.exists()
    assert found.instances() == set()


def test_what_is_booted_to_prove_a_backup_reaches_nothing() -> None:
    """An isolated one has no network, port, shared directory or stick; one that goes on in earnest has them all."""
    asked = InstanceRequest(
        image="",
        isolation="vm",
        mounts=[MountRequest(kind="bind", source="/srv", target="/srv")],
        ports=[PortRequest(container_port=22, host_port=2222)],
        machine=MachineRequest(usb=[UsbRequest(path="/stick")]),
    )
    taken = Point(id="a", created="", full=True, quiet=True, disks={"root": 1 << 30})
    found = Backups(machine="x", name="web", request=asked, points=(taken,))
    for isolated in (False, True):
        made = restore.request_of(found, 0, RestoreRequest(directory="/b", name="new", isolated=isolated))
        assert made.machine is not None
        assert (bool(made.mounts), bool(made.ports), bool(made.machine.usb)) == (not isolated,) * 3
    assert [use.network for use in made.networks] == ["none"]
