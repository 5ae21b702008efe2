"""What cloud-init reads at a machine's start: a small FAT drive labelled CIDATA (its "NoCloud" source).

user-data is the user's own; what trivet was told (users, keys, packages) is vendor-data, which the user's overrides.
The network is written anew for every start, as addresses may have changed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from trivet.base.error import Internal, Unsupported
from trivet.isolation import sharing
from trivet.isolation.plan import Address, Attachment, Plan

_LEAST = 2 << 20
_HEAD = b"#cloud-config\n"
_PACKAGES = {"mkfs.vfat": "dosfstools", "mcopy": "mtools"}


def documents(plan: Plan) -> dict[str, bytes]:
    """Compose the files; JSON is YAML."""
    seed = plan.hardware.seed if plan.hardware else None
    if seed is None:
        return {}
    meta = {"instance-id": plan.id, "local-hostname": plan.hostname or plan.name}
    return {
        "meta-data": msgspec.json.encode(meta),
        "user-data": seed.user.encode() or _HEAD + b"{}\n",
        "vendor-data": _vendor(seed.vendor, sharing.commands(plan)),
        "network-config": seed.network.encode() or msgspec.json.encode(network(plan)),
    }


def _vendor(text: str, commands: list[list[str]]) -> bytes:
    """Add what is to be done at every boot to what was told at the beginning."""
    if not commands:
        return text.encode()
    return _HEAD + msgspec.json.encode(msgspec.json.decode(text.removeprefix(_HEAD.decode())) | {"bootcmd": commands})


def network(plan: Plan) -> dict[str, Any]:
    """Describe the interfaces as netplan does; resolvers are those of the instance's resolv.conf."""
    servers = _servers(plan)
    taps = [attachment for attachment in plan.attachments if attachment.kind == "tap"]
    return {"version": 2, "ethernets": {use.name: _interface(use, servers) for use in taps}}


def write(plan: Plan, target: Path) -> None:
    """Make the drive; nothing is left when that fails. Raises `Unsupported` without mtools and dosfstools."""
    drive(target, "CIDATA", documents(plan))


def drive(target: Path, label: str, contents: dict[str, bytes]) -> None:
    """Make a small FAT drive of files."""
    with tempfile.TemporaryDirectory(prefix=".seed-", dir=target.parent) as scratch:
        files = []
        for name, content in contents.items():
            files.append(Path(scratch, name))
            files[-1].write_bytes(content)
        made = Path(scratch, ".drive")
        with made.open("wb") as created:
            created.truncate(_LEAST + 2 * sum(file.stat().st_size for file in files))
        _run("mkfs.vfat", "-n", label, str(made))
        _run("mcopy", "-i", str(made), *map(str, files), "::")
        made.rename(target)


def _interface(use: Attachment, servers: list[str]) -> dict[str, Any]:
    routes = [{"to": _everywhere(each), "via": each.gateway} for each in use.addresses if each.gateway]
    return {
        "match": {"macaddress": use.mac},
        "set-name": use.name,
        "mtu": use.mtu,
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "addresses": [each.address for each in use.addresses],
        **({"routes": routes} if routes else {}),
        **({"nameservers": {"addresses": servers}} if servers and routes else {}),
    }


def _everywhere(address: Address) -> str:
    """Spell a default route so that cloud-init 22 knows it."""
    return "::/0" if ":" in address.gateway else "0.0.0.0/0"


def _servers(plan: Plan) -> list[str]:
    text = next((file.content for file in plan.files if file.target == "/etc/resolv.conf"), b"").decode()
    return [line.split()[1] for line in text.splitlines() if line.startswith("nameserver ")]


def _run(program: str, *words: str) -> None:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        raise Unsupported(
            f"cannot write what cloud-init reads: {program} is not installed",
            hint=f"apt-get install {_PACKAGES[program]}",
        )
    done = subprocess.run([found, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Internal(f"cannot write what cloud-init reads: {program}: {said[-1]}")
