"""OVA: a tar with a machine's description, the sums of its files, and the files, flat beside one another."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from trivet.base.error import Corrupt
from trivet.engine.disk import convert, ovf, ovf_text
from trivet.engine.disk.element import LIMIT
from trivet.engine.disk.machine import ApplianceRefused, DiskFile, Machine
from trivet.engine.disk.model import Format
from trivet.engine.snapshot import tar
from trivet.engine.snapshot.tar import MalformedTar, Reader
from trivet.store.content import explaining_full

MOST_MEMBERS = 200
SUM = re.compile(r"(SHA1|SHA256|SHA512)\s*\(([^()]+)\)\s*=\s*([0-9a-fA-F]+)")
ALGORITHMS = ("sha1", "sha256", "sha512")
DESCRIPTIONS = (".ovf", ".mf", ".cert")


class Appliance(NamedTuple):
    """What was unpacked: the machine, and where its disks' files are, in its order."""

    machine: Machine
    files: tuple[Path, ...]


class _Member(NamedTuple):
    path: Path
    size: int
    sums: Mapping[str, str]


def unpack(file: BinaryIO, room: Path, name: str) -> Appliance:
    """Unpack an OVA (or a tar of an OVF and its files) into an empty directory, all sums verified.

    Raises `ApplianceRefused` for one that is incomplete or names files elsewhere.
    """
    try:
        members = _members(file, room, name)
    except MalformedTar as error:
        raise ApplianceRefused(name, error.message) from error
    described = [each for each in members if each.lower().endswith(".ovf")]
    if len(described) != 1:
        raise ApplianceRefused(name, f"it has {len(described)} descriptions (.ovf), not one")
    machine = ovf.read(members[described[0]].path.read_bytes(), name)
    for each in members:
        if each.lower().endswith(".mf"):
            _verify(members[each].path.read_bytes(), members, name)
    return Appliance(machine, tuple(_file(disk, members, name) for disk in machine.disks))


def _members(file: BinaryIO, room: Path, name: str) -> dict[str, _Member]:
    found: dict[str, _Member] = {}
    reader = Reader(file)
    for entry in reader:
        title = entry.name.decode("utf-8", "surrogateescape").removeprefix("./")
        if entry.type == tar.DIRECTORY and title in ("", "."):
            continue
        ovf.check_name(title, name)
        if entry.type != tar.FILE or entry.sparse is not None:
            raise ApplianceRefused(name, f"{title[:100]!r} in it is no plain file")
        if title in found or len(found) >= MOST_MEMBERS:
            raise ApplianceRefused(name, f"it has {title[:100]!r} twice, or more than {MOST_MEMBERS} files")
        if title.lower().endswith(DESCRIPTIONS) and entry.size > LIMIT:
            raise ApplianceRefused(name, f"{title[:100]!r} in it is too large")
        found[title] = _store(reader, entry.size, room / f"member-{len(found)}")
    return found


def _store(reader: Reader, size: int, path: Path) -> _Member:
    sums = {algorithm: hashlib.new(algorithm, usedforsecurity=False) for algorithm in ALGORITHMS}
    with explaining_full(path), path.open("xb") as file:

        def write(piece: memoryview) -> None:
            for state in sums.values():
                state.update(piece)
            file.write(piece)

        reader.copy(size, write)
    return _Member(path, size, {algorithm: state.hexdigest() for algorithm, state in sums.items()})


def _verify(raw: bytes, members: Mapping[str, _Member], name: str) -> None:
    """Hold the files against their sums; a sum of a file that isn't there is a file that is missing."""
    for line in raw.decode("utf-8", "replace").splitlines():
        if not line.strip():
            continue
        match = SUM.fullmatch(line.strip())
        if not match:
            raise ApplianceRefused(name, f"its manifest has the unreadable line {line[:80]!r}")
        algorithm, file, told = match[1].lower(), match[2], match[3].lower()
        if file not in members:
            raise ApplianceRefused(name, f"{file[:100]!r} is missing")
        if members[file].sums[algorithm] != told:
            raise Corrupt(f"{name} is corrupt: {file} is not what its manifest says")


def _file(disk: DiskFile, members: Mapping[str, _Member], name: str) -> Path:
    member = members.get(disk.file)
    if member is None:
        raise ApplianceRefused(name, f"{disk.file!r} is missing")
    if disk.size is not None and disk.size != member.size:
        raise ApplianceRefused(name, f"{disk.file!r} has {member.size} bytes, not {disk.size}")
    return member.path


def write(machine: Machine, raws: Sequence[Path], target: BinaryIO, room: Path) -> None:
    """Write a machine as an OVA; `raws` are its disks as raw files, of which others may read, and `room` is empty.

    The disks are named after the machine, whatever `machine.disks` says.
    """
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", machine.name).strip(".") or "machine"
    disks, files = [], []
    for number, raw in enumerate(raws):
        work = room / f"work-{number}"
        work.mkdir(mode=0o700)
        file = room / f"{stem}-disk{number + 1}.vmdk"
        options = "subformat=streamOptimized"
        convert.convert(raw, Format.RAW, file, Format.VMDK, work, what=machine.name, options=options)
        disks.append(DiskFile(file=file.name, format=Format.VMDK, capacity=raw.stat().st_size))
        files.append(file)
    described = msgspec.structs.replace(machine, disks=tuple(disks))
    text = ovf_text.write(described, {file.name: file.stat().st_size for file in files}).encode()
    description, manifest = room / f"{stem}.ovf", room / f"{stem}.mf"
    description.write_bytes(text)
    manifest.write_text("".join(f"SHA256({each.name})= {_sum(each)}\n" for each in (description, *files)))
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        for each in (description, manifest, *files):
            archive.add(each, each.name, filter=_plain)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave this machine's facts out: the same machine gives the same bytes."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime, entry.mode = 0, 0o644
    return entry
