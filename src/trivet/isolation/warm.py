"""What a spare machine does beforehand, so that its kernel has done once what every program needs.

CACHE/warm/KEY/
├── image   a read-only drive with the launcher in it, as a program
└── upper   an empty writable one
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from trivet.base.error import Internal
from trivet.hypervisor.device.nic import Nic
from trivet.hypervisor.template import PORTS
from trivet.isolation import guest
from trivet.isolation.plan import Address, Attachment, File, Limits, Plan, Program
from trivet.launch.launcher import BINARY
from trivet.launch.operation import AwaitUnused, Builtin, Operation, Root, Spawn, Wait

_PROGRAM, _SIZE = "program", 16 << 20
_MAC, _NET = "02:00:00:00:00:02", "192.0.2"  # for documentation (RFC 5737): nobody's
_PLACES = "/usr/sbin:/usr/bin:/sbin:/bin"


class CannotWarm(Internal):
    """The drives of spare machines that can't be made."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"cannot make the drives of spare machines: {cause}")


def drives(cache: Path) -> tuple[Path, Path]:
    """Find or make the two drives; the second one is to be copied."""
    made = BINARY.stat()
    key = hashlib.sha256(f"{made.st_size} {made.st_mtime_ns}".encode()).hexdigest()[:16]
    place = cache / "warm" / key
    if not place.exists():
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in place.parent.iterdir():
            shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            ready = Path(scratch, key)
            _make(ready, Path(scratch, "tree"))
            if not place.exists():
                ready.rename(place)
    return place / "image", place / "upper"


def _make(ready: Path, tree: Path) -> None:
    ready.mkdir()
    tree.mkdir()
    shutil.copy(BINARY, tree / _PROGRAM)
    with (ready / "upper").open("xb") as file:
        file.truncate(_SIZE)
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", str(ready / "upper"))
    _run("mkfs.erofs", str(ready / "image"), str(tree))


def _run(program: str, *words: str) -> None:
    try:
        subprocess.run([program, *words], env={**os.environ, "PATH": _PLACES}, capture_output=True, check=True)
    except subprocess.CalledProcessError as error:
        raise CannotWarm(error.stderr.decode(errors="replace").strip() or f"{program} failed") from error
    except OSError as error:
        raise CannotWarm(f"{program}: {error.strerror}") from error


def nic() -> Nic:
    """Describe the interface that is there meanwhile."""
    return Nic(name="rehearsal", tap="", mac=_MAC, slot=PORTS.names[0], late=True, movable=True)


def up(plan: Plan) -> list[Operation]:
    """Compute what the agent does: find its interface, mount, make namespaces, execute a program."""
    own = Attachment(
        kind="tap", network="", mac=_MAC, addresses=(Address(address=f"{_NET}.2/24", gateway=f"{_NET}.1"),)
    )
    ready = msgspec.structs.replace(
        plan,
        attachments=(own,),
        program=Program(argv=(f"/{_PROGRAM}", "--exercise")),
        files=(File(target="/etc/hosts", source="", content=b""),),
        limits=Limits(),
    )
    return guest.launch(ready, forked=True)


def down() -> list[Operation]:
    """Compute what it does next: wait until nothing of the drives is in use, or known, any more."""
    return [
        AwaitUnused(guest.IMAGE),
        AwaitUnused(guest.DRIVE),
        Spawn(),
        Root("/"),
        Wait(),
        Builtin("nothing", ("/",)),
    ]
