"""`vm start`, `stop`, `reboot`, `rm`, `ls`, `info`."""

from __future__ import annotations

import time
from argparse import Namespace

from trivet.base.error import Conflict
from trivet.cli import value
from trivet.cli.argument import FILTER, INSTANCE
from trivet.cli.command import Command, flag, option
from trivet.cli.context import Context
from trivet.cli.instance import each, port_text, status
from trivet.cli.output import FORMAT, JSON, Column, binary_size, human_size, show, write_json
from trivet.client.schema import Instance
from trivet.client.schema_machine import DeviceInfo, MachineInfo

_MOMENT, _STEP = 5.0, 0.1  # in which QEMU refuses what it can't do

REF = option("machine", metavar="MACHINE", help="name, id or beginning of an id", complete=INSTANCE)
REFS = option("machines", metavar="MACHINE", nargs="+", help="name, id or beginning of an id", complete=INSTANCE)


def start(context: Context, args: Namespace) -> int:
    """Switch machines on."""

    def action(ref: str) -> None:
        context.client.instances.start(ref)
        deadline = time.monotonic() + _MOMENT
        while not (found := context.client.machines.get(ref)).run_state and time.monotonic() < deadline:
            if found.status != "running":
                break
            time.sleep(_STEP)
        ended = context.client.instances.get(ref)
        if ended.status == "exited" and ended.exit_code:
            raise Conflict(f"machine {ref} ended at once: {ended.error or 'see its log'}", hint=f"trivet logs {ref}")

    return each(context, args, args.machines, action)


def stop(context: Context, args: Namespace) -> int:
    """Press the power button, pull the plug after the grace."""
    grace = 0 if args.force else args.time
    return each(context, args, args.machines, lambda ref: context.client.instances.stop(ref, grace=grace))


def reboot(context: Context, args: Namespace) -> int:
    """Have machines reboot."""
    return each(context, args, args.machines, lambda ref: context.client.machines.reboot(ref, force=args.force))


def remove(context: Context, args: Namespace) -> int:
    """Remove machines."""

    def action(ref: str) -> None:
        context.client.machines.get(ref)  # an instance of another kind isn't removed by this command
        context.client.instances.remove(ref, force=args.force)

    return each(context, args, args.machines, action)


def list_(context: Context, args: Namespace) -> int:
    """List machines, running or not."""
    found = context.client.instances.list(all=True, wanted=value.collect(args.filter))
    rows = sorted((row for row in found if row.request.machine is not None), key=lambda row: row.name)
    columns: list[Column[Instance]] = [
        Column("NAME", lambda row: row.name),
        Column("IMAGE", lambda row: row.image or "-"),
        Column("CPUS", lambda row: f"{row.request.cpus or 1:g}"),
        Column("MEMORY", lambda row: binary_size(row.request.memory or 1 << 30)),
        Column("STATUS", status),
        Column("ADDRESS", lambda row: ", ".join(text.split("/")[0] for use in row.networks for text in use.addresses)),
        Column("PORTS", lambda row: ", ".join(port_text(port) for port in row.ports)),
    ]
    if args.quiet:
        args.format = "name"
    show(rows, columns, args, lambda row: row.name)
    return 0


def info(context: Context, args: Namespace) -> int:
    """Show a machine."""
    found = context.client.machines.get(args.machine)
    if args.json:
        write_json(found)
        return 0
    for title, text in _lines(found):
        print(f"{title:<12}{text}")
    return 0


def _lines(found: MachineInfo) -> list[tuple[str, str]]:
    firmware = found.firmware + (", Secure Boot" if found.secure_boot else "") + (", TPM" if found.tpm else "")
    lines = [
        ("name", found.name),
        ("status", found.status + (f" ({found.run_state})" if found.run_state else "")),
        ("image", found.image or "-"),
        ("firmware", firmware),
        ("processors", str(found.cpus)),
        ("memory", binary_size(found.memory)),
    ]
    lines += [
        (f"disk {disk.name}", f"{human_size(disk.size)}, takes {human_size(disk.used)}, {disk.path}")
        for disk in found.disks
    ]
    lines += [("cdrom", path) for path in found.cdroms]
    lines += [(each.kind, _device(each)) for each in found.devices]
    lines += [("display", f"vnc, unix:{found.display}")] if found.display else []
    lines.append(("agent", "answers" if found.agent else "-"))
    if found.agent:
        told = (("hostname", found.hostname), ("system", found.system), ("addresses", ", ".join(found.addresses)))
        lines += [(title, text) for title, text in told if text]
    return lines


def _device(found: DeviceInfo) -> str:
    words = (found.name, found.source, found.target, "read-only" if found.read_only else "")
    return ", ".join(word for word in words if word)


FORCE = flag("-f", "--force", help="at once, without asking the guest")

COMMANDS = {
    "start": Command(start, (*JSON, REFS), examples=(("trivet vm start web", ""),)),
    "stop": Command(
        stop,
        (
            FORCE,
            option(
                "-t", "--time", metavar="TIME", type=value.seconds, default=None, help="grace (default: as created)"
            ),
            *JSON,
            REFS,
        ),
        examples=(("trivet vm stop web", ""), ("trivet vm stop -f web", "pull the plug")),
    ),
    "reboot": Command(
        reboot,
        (flag("-f", "--force", help="press the reset button"), *JSON, REFS),
        about="The guest agent is asked, or ctrl-alt-delete pressed where there is none.",
        examples=(("trivet vm reboot web", ""),),
    ),
    "rm": Command(
        remove, (flag("-f", "--force", help="running ones too"), *JSON, REFS), examples=(("trivet vm rm web", ""),)
    ),
    "ls": Command(
        list_, (flag("-q", "--quiet", help="only show names"), FILTER, *FORMAT), examples=(("trivet vm ls", ""),)
    ),
    "info": Command(info, (*JSON, REF), examples=(("trivet vm info web", ""),)),
}
