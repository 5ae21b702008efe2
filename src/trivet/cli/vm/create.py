"""`vm create`: the options of a machine, and the request they mean."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import get_args

import msgspec

from trivet.base.error import NotFound
from trivet.cli import value
from trivet.cli.argument import DIRECTORY, FILE, NETWORK, repeated
from trivet.cli.command import Command, Misuse, flag, option, under
from trivet.cli.context import Context
from trivet.cli.disk import FORMATS, format_of
from trivet.cli.endpoint import network
from trivet.cli.mount import volume
from trivet.cli.output import write_json
from trivet.cli.patience import patience
from trivet.cli.port import publish
from trivet.cli.progress import Transfer, choose, follow
from trivet.cli.request import restart_policy
from trivet.cli.vm.device import stick
from trivet.client.schema import Created, InstanceRequest
from trivet.client.schema_machine import Boot, DiskRequest, MachineRequest, ObtainRequest

STOP = 120
PCI = ("accelerator", "audio", "gpu", "network", "nvme", "storage", "usb")
FROM_ELSEWHERE = ("https://", "http://", "stream:")
_DISK = re.compile(r"([a-z0-9-]+):([^,]+)((?:,[a-z]+=[^,]+)*)")


def create(context: Context, args: Namespace) -> int:
    """Make a machine; its image first, where it isn't there."""
    request = request_of(args)
    created = _made(context, args, request)
    for warning in created.warnings:
        context.warn(warning)
    if args.dry_run or args.json:
        write_json(created)
    else:
        print(created.id)
    if args.start and not args.dry_run:
        context.client.instances.start(created.id)
    return 0


def _made(context: Context, args: Namespace, request: InstanceRequest) -> Created:
    if args.image and _is_file(args.image):
        image = _imported(context, args)
        request = msgspec.structs.replace(request, image=image)
    elif request.image:
        wish = ObtainRequest(
            reference=args.image,
            checksum=args.checksum,
            format=args.format,
            catalogue=args.catalogue,
            keyring=_path(args.keyring),
        )
        found = follow(context.client.machines.obtain(wish), quiet=args.quiet)
        if args.image.startswith(FROM_ELSEWHERE):
            request = msgspec.structs.replace(request, image=str(found["name"]))
    with patience(f"creating machine {request.name}"):
        return context.client.instances.create(request, dry_run=args.dry_run)


def request_of(args: Namespace) -> InstanceRequest:
    """Translate the options. Raises `Misuse`, and `OSError` for a file that can't be read."""
    return InstanceRequest(
        image=args.image,
        isolation="vm",
        name=args.name,
        hostname=args.hostname,
        ports=[port for ports in args.publish for port in ports],
        networks=args.network,
        mounts=args.volume,
        dns=args.dns,
        memory=args.memory,
        cpus=args.cpus,
        labels=dict(args.label),
        restart=restart_policy(args.restart),
        stop_timeout=args.stop_timeout,
        machine=_machine(args),
    )


def _machine(args: Namespace) -> MachineRequest:
    return MachineRequest(
        disk=args.disk,
        disks=args.add_disk,
        iops=args.iops,
        rate=args.rate,
        firmware="uefi" if args.secure_boot else args.firmware,
        secure_boot=args.secure_boot,
        tpm=args.tpm,
        watchdog=args.watchdog,
        usb=args.usb,
        pci=args.pci,
        cdroms=[_path(name) for name in args.cdrom],
        boot=args.boot or (["network"] if args.pxe else []),
        pxe=_path(args.pxe.partition(":")[0]),
        pxe_file=args.pxe.partition(":")[2],
        kernel=_path(args.kernel),
        initrd=_path(args.initrd),
        parameters=args.append,
        cloud_init=not args.no_cloud_init,
        user=args.user,
        password=_hash(args.password),
        ssh_keys=[key for text in args.ssh_key for key in _keys(text)],
        packages=[name for text in args.package for name in text.replace(",", " ").split()],
        user_data=_text(args.user_data),
        network_config=_text(args.network_config),
        answers={Path(name).name: _text(name) for name in args.answer},
    )


def _is_file(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or Path(name).is_file()


def _imported(context: Context, args: Namespace) -> str:
    """Make an image of a disk image file, as `image import` does; its id."""
    path = Path(args.image).expanduser()
    form = format_of(Namespace(format=args.format, archive=str(path)))
    if not form:
        raise Misuse(f"{args.image}: its name does not say what it is", hint="--format raw, qcow2, ... says it")
    with path.open("rb") as source:
        transfer = Transfer(choose(quiet=args.quiet), args.image, "reading")
        steps = context.client.images.import_disk(transfer.sender(source), format=form, name=path.name)
        return str(follow(steps, display=transfer)["id"])


def _path(name: str) -> str:
    return str(Path(name).absolute()) if name else ""


def _text(name: str) -> str:
    return Path(name).read_text() if name else ""


def _keys(text: str) -> list[str]:
    """Read public keys: the key itself, or a file of them."""
    if text.startswith(("ssh-", "ecdsa-", "sk-")):
        return [text]
    path = Path(text).expanduser()
    if not path.is_file():
        raise NotFound(f"--ssh-key: {text} is neither a public key nor a file of them")
    return [line.strip() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


def _hash(password: str) -> str:
    """Hash a password, unless it is hashed already: the engine never sees it."""
    if not password or re.match(r"\$\w+\$", password):
        return password
    import bcrypt  # nobody else on this side needs it

    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()


def disk(text: str) -> DiskRequest:
    """Read `NAME:SIZE[,iops=N][,rate=SIZE]`."""
    match = _DISK.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is no disk; write data:10g or data:10g,iops=500,rate=50m")
    limits = dict(pair.split("=", 1) for pair in match[3].split(",") if pair)
    if unknown := set(limits) - {"iops", "rate"}:
        raise ArgumentTypeError(f"{unknown.pop()!r} is no limit of a disk; known are iops and rate")
    return DiskRequest(
        name=match[1],
        size=value.size(match[2]),
        iops=value.natural(limits.get("iops", "0")),
        rate=value.size(limits.get("rate", "0")),
    )


def order(text: str) -> list[Boot]:
    """Read a boot order: cdrom,disk."""
    known: dict[str, Boot] = {name: name for name in get_args(Boot)}
    words = text.split(",")
    if any(word not in known for word in words) or len(set(words)) < len(words):
        raise Misuse(f"--boot: {text!r} is no order of disk, cdrom and network")
    return [known[word] for word in words]


CATALOGUE = (
    option("--catalogue", metavar="URL", default="", help="simplestreams catalogue of disk images"),
    option("--keyring", metavar="FILE", default="", help="OpenPGP keys that must have signed it", complete=FILE),
)

OPTIONS = (
    *under(
        "what it boots",
        option(
            "--image",
            metavar="IMAGE",
            default="",
            help="debian/12, made from this machine's package sources; a disk image, a FILE of one, or its URL; "
            "stream:NAME of a catalogue",
            complete=FILE,
        ),
        option("--format", choices=FORMATS, default="", help="the file's format (default: what its name says)"),
        option("--checksum", metavar="SUM", default="", help="of what the URL gives: sha256:... or sha512:..."),
        *CATALOGUE,
        repeated("--cdrom", metavar="FILE", help="an ISO image in a drive; may be given twice", complete=FILE),
        repeated(
            "--answer",
            metavar="FILE",
            help="answers for an installer: autounattend.xml, ks.cfg; preseed.cfg with --initrd",
            complete=FILE,
        ),
        option("--boot", metavar="ORDER", type=order, default=[], help="order of disk,cdrom,network (the default)"),
        option(
            "--pxe",
            metavar="DIRECTORY[:FILE]",
            default="",
            help="boot from the network, which has this directory: FILE, or boot.ipxe, pxelinux.0, bootx64.efi",
            complete=DIRECTORY,
        ),
        option("--firmware", choices=("bios", "uefi"), default="bios", help="firmware (default: bios)"),
        flag("--secure-boot", help="boot only what is signed; implies uefi"),
        flag("--tpm", help="a TPM 2.0, by swtpm"),
        option("--kernel", metavar="FILE", default="", help="start this kernel in place of a loader", complete=FILE),
        option("--initrd", metavar="FILE", default="", help="the kernel's initial RAM disk", complete=FILE),
        option("--append", metavar="WORDS", default="", help="the kernel's parameters"),
    ),
    *under(
        "resources",
        option("--cpus", metavar="N", type=value.cores, default=0.0, help="number of processors"),
        option("-m", "--memory", metavar="SIZE", type=value.size, default=0, help="memory (default: 1g)"),
        option("--disk", metavar="SIZE", type=value.size, default=0, help="size of the root disk, thin (default: 10g)"),
        option("--iops", metavar="N", type=value.natural, default=0, help="limit of its requests a second"),
        option("--rate", metavar="SIZE", type=value.size, default=0, help="limit of its bytes a second"),
        repeated("--add-disk", metavar="NAME:SIZE[,iops=N][,rate=SIZE]", type=disk, help="a further, empty disk"),
        repeated(
            "-v",
            "--volume",
            metavar="SOURCE:TARGET[:ro]",
            type=volume,
            help="share a directory of the host or a volume, mounted by cloud-init",
        ),
        repeated(
            "--usb", metavar="FILE[:ro]", type=stick, help="a raw image as a USB stick; two at most", complete=FILE
        ),
        repeated(
            "--pci",
            metavar="CLASS[:VENDOR[:DEVICE]]",
            help=f"a PCI device of the host, which has it to give away (vfio-pci): {', '.join(PCI)}",
        ),
        option(
            "--watchdog",
            choices=("reset", "poweroff", "pause"),
            default="",
            help="a watchdog, and what it does to a guest that hangs",
        ),
    ),
    *under(
        "network",
        repeated("--network", "--net", metavar="NETWORK", type=network, help="as of `trivet run`", complete=NETWORK),
        repeated("-p", "--publish", metavar="[IP:][HOST:]PORT[/udp]", type=publish, help="publish a port"),
        repeated("--dns", metavar="ADDRESS", help="name server"),
    ),
    *under(
        "cloud-init",
        option("--user", metavar="NAME", default="", help="a user, who may become root (default: the image's own)"),
        repeated("--ssh-key", metavar="KEY|FILE", help="public key to log in with", complete=FILE),
        option("--password", metavar="TEXT", default="", help="password, or its hash as in shadow(5)"),
        repeated("--package", metavar="NAME", help="package to install at the first boot"),
        option("--hostname", metavar="NAME", default="", help="host name (default: the machine's name)"),
        option("--user-data", metavar="FILE", default="", help="cloud-init's; counts before these", complete=FILE),
        option("--network-config", metavar="FILE", default="", help="in place of trivet's own", complete=FILE),
        flag("--no-cloud-init", help="tell it nothing"),
    ),
    *under(
        "instance",
        repeated("-l", "--label", metavar="KEY[=VALUE]", type=value.label, help="attach a label"),
        option("--restart", metavar="POLICY", default="no", help="no, always, unless-stopped or on-failure[:N]"),
        option(
            "--stop-timeout",
            metavar="TIME",
            type=value.seconds,
            default=STOP,
            help=f"grace before its plug is pulled (default: {STOP}s)",
        ),
        flag("--start", help="switch it on"),
        flag("--dry-run", help="print the plan and the operations, do nothing"),
        flag("-q", "--quiet", help="no progress"),
        flag("--json", help="print JSON"),
    ),
    option("name", metavar="NAME", help="name of the machine"),
)

COMMANDS = {
    "create": Command(
        create,
        OPTIONS,
        about="A machine is an instance at level vm: start, stop, ps, logs (its serial console), exec and cp (by its "
        "guest agent), ports and networks are as with others.",
        examples=(
            ("trivet vm create web --image debian/12 --ssh-key ~/.ssh/id_ed25519.pub -p 2222:22 --start", ""),
            ("trivet vm create new --disk 20g --cdrom netinst.iso --firmware uefi", "an installation"),
        ),
    )
}
