"""The records that both cgroup versions speak."""

from __future__ import annotations

import os

import msgspec


class Hierarchy(msgspec.Struct, frozen=True, kw_only=True):
    """A mounted hierarchy; `name` is a v1 hierarchy's "name=..." when it has one."""

    version: int
    mount: str
    controllers: tuple[str, ...] = ()
    name: str = ""

    @property
    def key(self) -> str:
        """Tell hierarchies apart that are mounted in several places."""
        return "unified" if self.version == 2 else ",".join(self.controllers) or self.name


def make(directory: str) -> None:
    """Make a group's directory, open to all whatever the umask is.

    Whoever shows a group as the root of a namespace must be able to walk there: kernels before 6.16 look with the
    rights of the one who mounts.
    """
    os.mkdir(directory)
    os.chmod(directory, 0o755)


class Write(msgspec.Struct, frozen=True):
    """One file to write, and what."""

    path: str
    value: str


class DeviceRule(msgspec.Struct, frozen=True, kw_only=True):
    """Allow or deny access ("rwm") to devices of a type ("a", "b", "c"); None is every number."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"

    def text(self) -> str:
        """Spell the rule as the v1 controller reads it."""
        if self.type == "a" and self.major is None and self.minor is None:
            return "a"
        numbers = ":".join("*" if number is None else str(number) for number in (self.major, self.minor))
        return f"{self.type} {numbers} {self.access}"


class BlockDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One value of one block device: `what` is weight, leaf_weight or rbps, wbps, riops, wiops."""

    what: str
    major: int
    minor: int
    value: int

    @property
    def number(self) -> str:
        """Spell the device's number."""
        return f"{self.major}:{self.minor}"


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """Limits; None leaves a value as it is, -1 is unlimited. `swap` counts memory and swap together, in bytes.

    `quota`, `burst` and periods are microseconds; `shares` is v1's cpu.shares; `weight` v1's blkio weight (10 to
    1000). `huge_pages` are (size, bytes), `priorities` (interface, number), `rdma` (device, "hca_handle=N ...").
    """

    memory: int | None = None
    swap: int | None = None
    reservation: int | None = None
    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    cpus: str = ""
    mems: str = ""
    pids: int | None = None
    weight: int | None = None
    leaf_weight: int | None = None
    block_devices: tuple[BlockDevice, ...] = ()
    kernel_tcp: int | None = None
    swappiness: int | None = None
    no_oom_killer: bool = False
    burst: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    idle: int | None = None
    huge_pages: tuple[tuple[str, int], ...] = ()
    net_class: int | None = None
    priorities: tuple[tuple[str, int], ...] = ()
    rdma: tuple[tuple[str, str], ...] = ()
    devices: tuple[DeviceRule, ...] = ()
    unified: tuple[tuple[str, str], ...] = ()


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured: times in nanoseconds, memory without the page cache that can be dropped, 0 limit: none.

    `cpu` is `user` and `kernel` together. Of so many `periods` the group had to wait in `throttled_periods`, for
    `throttled` in all.
    """

    cpu: int = 0
    user: int = 0
    kernel: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled: int = 0
    memory: int = 0
    memory_limit: int = 0
    pids: int = 0
    read: int = 0
    written: int = 0
    out_of_memory: int = 0

    def merge(self, other: Usage) -> Usage:
        """Take from each side what it knows; every value is measured by one hierarchy only."""
        return Usage(**{name: getattr(self, name) or getattr(other, name) for name in self.__struct_fields__})


def read(path: str) -> bytes:
    """Read a small file."""
    descriptor, content = os.open(path, os.O_RDONLY | os.O_CLOEXEC), b""
    try:
        while part := os.read(descriptor, 1 << 14):
            content += part
        return content
    finally:
        os.close(descriptor)


def number(text: str) -> int:
    """Read a value, "max" and v1's huge page-rounded default being no limit at all (0)."""
    value = 0 if text.strip() == "max" else int(text)
    return 0 if value >= 1 << 60 else value


def table(text: str) -> dict[str, int]:
    """Read a file of "name value" lines."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
