"""Operations on namespaces and what belongs to them: names, interfaces, kernel parameters."""

from __future__ import annotations

from trivet.launch.codec import Operation


class Unshare(Operation, frozen=True):
    """unshare(2)."""

    code = 11
    repeated = True
    flags: int


class Join(Operation, frozen=True):
    """setns(2) into all namespaces in `flags` of process `pid`; pid 0 is session 0's program (guest)."""

    code = 12
    pid: int
    flags: int


class JoinPath(Operation, frozen=True):
    """setns(2) into the namespace file at host path `path`."""

    code = 13
    path: str
    flags: int


class Hostname(Operation, frozen=True):
    """sethostname(2) and setdomainname(2); "" leaves a name as it is."""

    code = 40
    name: str
    domain: str = ""


class LinkUp(Operation, frozen=True):
    """Bring up the interface whose name or MAC address is `link`, first renamed to `name` and given `mtu` if set.

    One known by its MAC address takes the name from another that has it: that one's own comes.
    """

    code = 41
    repeated = True
    link: str
    name: str = ""
    mtu: int = 0


class AddAddress(Operation, frozen=True):
    """Give interface `link` an address in CIDR form."""

    code = 42
    link: str
    address: str


class LinkAddress(Operation, frozen=True):
    """Give interface `link` another MAC address."""

    code = 72
    link: str
    mac: str


class DropAddress(Operation, frozen=True):
    """Take an address in CIDR form from interface `link`; one that isn't there is fine."""

    code = 73
    link: str
    address: str


class AddRoute(Operation, frozen=True):
    """Add a route to `destination` (CIDR, "" is the default) via `gateway` on `link`, in place of another one there."""

    code = 43
    link: str
    destination: str
    gateway: str


class Sysctl(Operation, frozen=True):
    """Write `value` to /proc/sys/`path` through a verified procfs descriptor."""

    code = 44
    repeated = True
    path: str
    value: str


class DeviceFilter(Operation, frozen=True):
    """Attach a BPF program (array of struct bpf_insn) that decides on devices to version 2 `cgroup` (host path)."""

    code = 15
    cgroup: str
    program: bytes


class Hold(Operation, frozen=True):
    """Make a user namespace with these maps and keep it as file `user`; with `network` one for the network in it, too.

    Both are host paths. The namespaces live until the files are unmounted. Without maps `user` is there already.
    """

    code = 17
    user: str
    network: str
    uid_map: str
    gid_map: str
