"""The files that give an instance its names: /etc/hosts, /etc/resolv.conf, /etc/hostname."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from trivet.base import tree
from trivet.base.error import InvalidArgument
from trivet.isolation.plan import File

HOST_GATEWAY = "host-gateway"
RESOLV_CONF = Path("/etc/resolv.conf")
HOSTS = Path("/etc/hosts")
UPSTREAM = Path("/run/systemd/resolve/resolv.conf")  # what systemd-resolved itself asks
PUBLIC = ("1.1.1.1", "8.8.8.8")
_LOOPBACK = (("127.0.0.1", "localhost"), ("::1", "localhost ip6-localhost ip6-loopback"))


def hosts(
    hostname: str,
    address: str,
    *,
    extra: Sequence[str] = (),
    gateway: str = "",
    base: str = "",
) -> bytes:
    """Build /etc/hosts.

    `extra` are "name:address" (address may be host-gateway).
    `base` is what comes first, for an instance that uses the host's network; else the loopback names do.
    Raises `InvalidArgument` naming the entry.
    """
    rows = [] if base else [f"{number}\t{names}" for number, names in _LOOPBACK]
    if address and hostname:
        rows.append(f"{address}\t{hostname}")
    elif hostname:
        rows.append(f"127.0.1.1\t{hostname}")
    rows += [_extra(entry, gateway) for entry in extra]
    text = base + "\n" if base and not base.endswith("\n") else base
    return (text + "\n".join(rows) + "\n").encode()


def resolv_conf(
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    *,
    shared: bool = False,
    embedded: str = "",
) -> bytes:
    """Build /etc/resolv.conf from the host's, or from `--dns` servers, search domains ("." for none) and options.

    A resolver on the host's loopback (systemd-resolved, dnsmasq) can't be reached from another network namespace: it is
    replaced by what it asks itself, or by public ones. `shared`: the instance has the host's network, where it can.
    `embedded` is where our own DNS server is, which asks all these.
    """
    for server in servers:
        _check_address(server, server)
    own = _lines(RESOLV_CONF)
    kept = [line for line in own if line.split()[0] in ("search", "domain") and not search]
    kept += [f"search {' '.join(search)}"] if search and "." not in search else []
    kept += [f"options {' '.join(options)}"] if options else [line for line in own if line.split()[0] == "options"]
    for word in (*search, *options):
        if not word or any(character.isspace() for character in word):
            raise InvalidArgument(f"{word!r} is not a search domain or an option of resolv.conf")
    if embedded:
        servers = (embedded,)
        if not any(line.startswith("options") and "ndots" in line for line in kept):
            kept.append("options ndots:0")  # names without a dot are for us first
    if not servers:
        servers = _nameservers(own, shared) or _nameservers(_lines(UPSTREAM), shared) or PUBLIC
    return "".join(f"{line}\n" for line in (*(f"nameserver {server}" for server in servers), *kept)).encode()


def resolvers() -> list[str]:
    """List the resolvers the host asks, so that no network hides one."""
    return list(_nameservers([*_lines(RESOLV_CONF), *_lines(UPSTREAM)], shared=False))


def upstream() -> list[tuple[str, bool]]:
    """List the resolvers the host asks, and whether only the host itself can (loopback, IPv6)."""
    found = _nameservers(_lines(RESOLV_CONF), shared=True)
    elsewhere = set(_nameservers(_lines(RESOLV_CONF), shared=False))
    return [(server, server not in elsewhere) for server in found] or [(server, False) for server in PUBLIC]


def files(directory: Path, hostname: str, hosts: bytes, resolv_conf: bytes) -> tuple[File, ...]:
    """Describe the three files, with the engine's copies in `directory`."""
    content = {"hosts": hosts, "resolv.conf": resolv_conf, "hostname": f"{hostname}\n".encode()}
    return tuple(
        File(target=f"/etc/{name}", source=str(directory / name), content=data) for name, data in content.items()
    )


def write(files: Iterable[File]) -> None:
    """Write the engine's copies."""
    for directory in {os.path.dirname(file.source) for file in files}:
        tree.make(directory)
    for file in files:
        descriptor = os.open(file.source, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, file.mode)
        try:
            os.fchmod(descriptor, file.mode)  # whatever the umask is
            os.write(descriptor, file.content)
        finally:
            os.close(descriptor)


def _extra(entry: str, gateway: str) -> str:
    name, _, address = entry.partition(":")
    if address == HOST_GATEWAY:
        address = gateway or "127.0.0.1"
    if not name or any(character.isspace() for character in name):
        raise InvalidArgument(f"host entry {entry!r} is not of the form NAME:ADDRESS")
    return f"{_check_address(address, entry)}\t{name}"


def _check_address(address: str, entry: str) -> str:
    try:
        return str(ipaddress.ip_address(address.strip("[]")))
    except ValueError as error:
        raise InvalidArgument(f"{address!r} in {entry!r} is not an IP address") from error


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(errors="replace").splitlines() if line.strip() and line[0] not in "#;"]
    except OSError:
        return []


def _nameservers(lines: Iterable[str], shared: bool) -> tuple[str, ...]:
    found = []
    for line in lines:
        words = line.split()
        if words[0] != "nameserver" or len(words) < 2:
            continue
        try:
            address = ipaddress.ip_address(words[1].partition("%")[0])
        except ValueError:
            continue
        if shared or not (address.is_loopback or address.is_link_local or address.version == 6):
            found.append(words[1])
    return tuple(found)
