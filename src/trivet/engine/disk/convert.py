"""qemu-img, which reads what strangers wrote, where it can do no harm.

It runs as nobody, in namespaces of its own without a network, sees the host's programs read-only, one file
to read and one directory to write to, may use the system calls of a container, and is told the formats:
it never guesses one, and opens no other file.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from trivet.base.error import Corrupt, Exhausted, Unavailable
from trivet.engine.disk.model import Format
from trivet.launch.operation import (
    Become,
    Bind,
    Capabilities,
    Directory,
    Exec,
    Identity,
    NoNewPrivileges,
    Operation,
    Pivot,
    Propagation,
    RemountRoot,
    Rlimit,
    Root,
    Seccomp,
    Spawn,
    Symlink,
    Umask,
)
from trivet.launch.spawn import run
from trivet.runtime import profile, seccomp
from trivet.store.content import explaining_full

NOBODY = 65534
NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # all but the user's
PRIVATE = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE
READ_ONLY = 0x1 | 0x2 | 0x4  # MOUNT_ATTR_RDONLY | NOSUID | NODEV
SAFE = 0x2 | 0x4 | 0x8
PROGRAMS = ("/usr", "/lib", "/lib64", "/lib32", "/bin")
TIMEOUT = 6 * 3600.0
MEMORY = 4 << 30  # address space; what is really used is a tenth of it at most
RESERVE = 256 << 20  # bytes that a conversion leaves on the disk

DRIVERS: Mapping[Format, str] = {format: format.value for format in Format} | {Format.VHD: "vpc"}
READING: Mapping[Format, str] = {Format.VHD: ",force_size_calc=current_size"}
WRITING: Mapping[Format, str] = {Format.VHD: "force_size=on", Format.QCOW2: "compat=1.1"}


class ProgramMissing(Unavailable):
    """qemu-img isn't installed."""

    def __init__(self) -> None:
        super().__init__("cannot convert disk images: qemu-img is not installed", hint="apt-get install qemu-utils")


class ConversionFailed(Corrupt):
    """qemu-img could not read the image, or said something else."""

    def __init__(self, what: str, output: bytes) -> None:
        lines = output.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
        super().__init__(f"cannot convert {what}: {lines[-1].removeprefix('qemu-img: ')[:300]}")


def program() -> str:
    """Find qemu-img. Raises `ProgramMissing`."""
    found = shutil.which("qemu-img", path="/usr/bin:/bin")
    if found is None:
        raise ProgramMissing
    return found


def convert(
    source: Path,
    form: Format,
    target: Path,
    into: Format,
    room: Path,
    *,
    what: str,
    options: str = "",
    compress: bool = False,
) -> None:
    """Convert a disk image; its header has been checked. `target` appears when all went well.

    Others may read `source`, but not reach it. `room` is an empty directory on the target's file system, which only
    root can enter. `options` are further ones of the target's format. Raises `ConversionFailed`, `Exhausted`.
    """
    out = room / "out"
    out.mkdir(mode=0o700)
    os.chown(out, NOBODY, NOBODY)
    written = [option for option in (WRITING.get(into, ""), options) if option]
    description = f"driver={DRIVERS[form]},file.driver=file,file.filename=/in/disk{READING.get(form, '')}"
    argv = [program(), "convert", "-q", "--image-opts", "-O", DRIVERS[into], "-S", "4k", "-W", "-m", "4"]
    argv += [word for option in written for word in ("-o", option)]
    argv += [*(["-c"] if compress else []), description, "/out/disk"]
    with explaining_full(target):
        done = run(confined(argv, room, source, out), timeout=TIMEOUT, check=_leaving_room(room))
    if done.code:
        if b"No space left" in done.error_output:
            raise Exhausted(f"cannot convert {what}: no space left on device", hint="trivet system prune")
        raise ConversionFailed(what, done.error_output or f"it ended with {done.code}".encode())
    os.chown(out / "disk", os.geteuid(), os.getegid())
    (out / "disk").chmod(0o600)
    (out / "disk").rename(target)
    out.rmdir()


def confined(argv: list[str], room: Path, source: Path, out: Path) -> list[Operation]:
    """Plan to run a program that sees `source` as /in/disk and may write to `out`, as /out."""
    root = room / "root"
    root.mkdir()
    root.chmod(0o755)  # whatever the umask
    links: list[Operation] = []
    shown: list[Operation] = []
    for path in map(Path, PROGRAMS):
        if path.is_symlink():
            links.append(Symlink(str(path), str(path.readlink())))
        elif path.is_dir():
            shown.append(Bind(str(path), str(path), attributes=READ_ONLY, propagation=0x40000))
    return [
        Spawn(flags=NAMESPACES),
        Umask(0o022),
        Propagation("/", PRIVATE),
        Bind(str(root), str(root), host=1),
        Root(str(root)),
        Directory("/in", 0o755),
        *shown,
        *links,
        Bind(str(source), "/in/disk", attributes=READ_ONLY),
        Bind(str(out), "/out", attributes=SAFE),
        Pivot(),
        RemountRoot(READ_ONLY),
        Rlimit(resource.RLIMIT_CORE, 0, 0),
        Rlimit(resource.RLIMIT_AS, MEMORY, MEMORY),
        Rlimit(resource.RLIMIT_NOFILE, 64, 64),
        Identity(NOBODY, NOBODY),
        Become(),
        Capabilities(0, 0, 0, 0),
        NoNewPrivileges(),
        Seccomp(seccomp.program(profile.default(()))),
        Exec(tuple(argv), ("PATH=/usr/bin:/bin", "LC_ALL=C", "HOME=/out")),
    ]


def _leaving_room(room: Path) -> Callable[[], None]:
    """Make a check that ends a conversion before it fills the disk."""

    def check() -> None:
        if shutil.disk_usage(room).free < RESERVE:
            raise Exhausted(
                "cannot convert a disk image: what it unpacks to does not fit on this disk",
                hint="free space, or try: trivet system prune",
            )

    return check
