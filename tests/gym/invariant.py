"""What must be the same before and after an attack, whether it worked or not."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import msgspec
from tests.gym.host import Host

_ELEMENTS = re.compile(r"\s*elements = \{[^}]*\}")
_OF_INTERFACE = re.compile(r'("(tv[0-9a-f]{10})"[^,}]*)')
SWITCHES = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/sys/kernel/uevent_helper")


class Picture(msgspec.Struct, frozen=True):
    """The host, as far as an attack could change it."""

    processes: Counter[str]
    mounts: tuple[str, ...]
    rules: str
    interfaces: tuple[str, ...]
    listening: tuple[str, ...]
    abstract: tuple[str, ...]
    devices: tuple[str, ...]
    switches: tuple[str, ...]
    programs: tuple[str, ...]


def take(host: Host, programs: tuple[Path, ...]) -> Picture:
    """Look at the host; `programs` are files that nobody may overwrite."""
    return Picture(
        processes=host.processes(),
        mounts=tuple(sorted(set(host.mounts()) - set(host.inherited))),
        rules=_ELEMENTS.sub(lambda found: _of_those_there(host, found[0]), host.run("nft", "list", "ruleset").stdout),
        interfaces=tuple(sorted(line.split(":")[0].strip() for line in host.read("net/dev").splitlines()[2:])),
        listening=tuple(sorted(_listening(host))),
        abstract=tuple(sorted(line.rpartition(" ")[2] for line in host.read("net/unix").splitlines() if " @" in line)),
        devices=tuple(sorted(path.name for path in Path("/dev").iterdir() if not path.name.startswith("loop"))),
        switches=tuple(Path(path).read_text() for path in SWITCHES if Path(path).exists()),
        programs=tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in programs),
    )


def _of_those_there(host: Host, elements: str) -> str:
    """Leave out what is said about interfaces that are gone: tidied up a moment later, it lets nobody do anything."""
    named = _OF_INTERFACE.findall(elements)
    there = host.read("net/dev")
    return "".join(f"\n{text.strip()}" for text, name in named if name in there) if named else elements


def _listening(host: Host) -> list[str]:
    """Name the addresses somebody listens on (proc_pid_net(5): state 0A)."""
    found = []
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in host.read(f"net/{kind}").splitlines()[1:]:
            words = line.split()
            if kind.startswith("udp") or words[3] == "0A":
                found.append(f"{kind} {words[1]}")
    return found


def differences(before: Picture, after: Picture) -> list[str]:
    """Name what is not the same."""
    found = []
    for name in before.__struct_fields__:
        old, new = Counter(_parts(getattr(before, name))), Counter(_parts(getattr(after, name)))
        if old != new:
            found.append(f"{name}: new {sorted((new - old).elements())}, gone {sorted((old - new).elements())}")
    return found


def _parts(value: Counter[str] | tuple[str, ...] | str) -> list[str]:
    if isinstance(value, str):
        return value.splitlines()
    return list(value.elements() if isinstance(value, Counter) else value)
