"""`vm export`, `import`, `commit`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from trivet.cli.archive import output_, result_of, write_out
from trivet.cli.argument import FILE
from trivet.cli.command import Command, Misuse, flag, option
from trivet.cli.context import Context
from trivet.cli.disk import FORMATS, SUFFIXES
from trivet.cli.output import JSON
from trivet.cli.patience import patience
from trivet.cli.progress import Transfer, choose, follow
from trivet.cli.vm.create import STOP
from trivet.cli.vm.life import REF
from trivet.client.schema import InstanceRequest
from trivet.client.schema_machine import DiskRequest, MachineRequest

OVA = "ova"
_FORMATS = tuple(dict.fromkeys((OVA, *FORMATS)))


def export(context: Context, args: Namespace) -> int:
    """Write a machine to a file."""
    suffixes = {".ova": OVA, **SUFFIXES}
    form = args.format or suffixes.get(Path(args.file or "").suffix.lower(), "")
    if not form:
        raise Misuse("the file's name does not say its format", hint=f"--format {', '.join(_FORMATS)}")
    args.output = args.file
    with (
        output_(args.file) as output,
        patience(f"reading machine {args.machine}"),
        context.client.machines.export(args.machine, form) as response,
    ):
        write_out(response, output, args)
    return 0


def import_(context: Context, args: Namespace) -> int:
    """Make a machine of an appliance: its disks become images, and the machine's disks are thin over them."""
    path = Path(args.file)
    with path.open("rb") as source:
        transfer = Transfer(choose(quiet=args.quiet), args.file, "reading")
        steps = context.client.images.import_disk(transfer.sender(source), format=OVA, name=path.name)
        result = follow(steps, display=transfer)
    told, disks = result["machine"], result["disks"]
    if not disks:
        raise Misuse(f"{args.file} has no disk")
    request = InstanceRequest(
        image=disks[0]["id"],
        isolation="vm",
        name=args.name or told["name"],
        cpus=float(told["cpus"]),
        memory=int(told["memory"]),
        stop_timeout=STOP,
        machine=MachineRequest(
            firmware="uefi" if told.get("firmware") == "uefi" else "bios",
            cloud_init=args.cloud_init,
            disk=told["disks"][0]["capacity"],
            disks=[
                DiskRequest(name=f"disk{number}", size=disk["capacity"], image=made["id"])
                for number, (disk, made) in enumerate(zip(told["disks"][1:], disks[1:], strict=True), 2)
            ],
        ),
    )
    with patience(f"creating machine {request.name}"):
        created = context.client.instances.create(request)
    print(created.id)
    return 0


def commit(context: Context, args: Namespace) -> int:
    """Make a disk image of a machine."""
    result_of(args, follow(context.client.machines.commit(args.machine, args.image), quiet=args.quiet), "id")
    return 0


SILENT = flag("-q", "--quiet", help="no progress")

COMMANDS = {
    "export": Command(
        export,
        (
            option("--format", choices=_FORMATS, default="", help="format of the file (default: what its name says)"),
            SILENT,
            REF,
            option("file", metavar="FILE", nargs="?", help="default: standard output", complete=FILE),
        ),
        about="The machine has to be off. An OVA has all its disks, other formats hold the root disk.",
        examples=(("trivet vm export web web.ova", ""), ("trivet vm export web web.qcow2", "the root disk")),
    ),
    "import": Command(
        import_,
        (
            flag("--cloud-init", help="tell the system its name and network by cloud-init, if it has that"),
            SILENT,
            option("file", metavar="FILE", help="an OVA", complete=FILE),
            option("name", metavar="NAME", nargs="?", default="", help="name (default: what the appliance says)"),
        ),
        about="A disk image without a machine around it: trivet vm create NAME --image FILE.",
        examples=(("trivet vm import web.ova web2", ""),),
    ),
    "commit": Command(
        commit,
        (SILENT, *JSON, REF, option("image", metavar="IMAGE", help="name of the image")),
        about="Machines made from it (vm create --image) are thin over it. The machine has to be off; what must not be "
        "the same in all of them is better taken out first: cloud-init clean --machine-id.",
        examples=(("trivet vm commit web golden:1", ""), ("trivet vm create web2 --image golden:1", "")),
    ),
}
