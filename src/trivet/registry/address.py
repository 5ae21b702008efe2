"""Which addresses a request on others' behalf may go to (SECURITY: server-side request forgery).

One host and port is named by the administrator and may be anywhere. Whatever else a redirect or a token
service leads to must be an address of the public internet: not this machine, not a private, link-local,
shared or multicast one, in whatever spelling of IPv6. What a name resolves to is checked where the
connection is made, so that a second answer of the name server changes nothing. Behind a proxy only
addresses can be checked, not names.
"""

from __future__ import annotations

import errno
import ipaddress
import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

_TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


class Guard(AbstractResolver):
    """Resolves names for one client, and refuses what it must not reach."""

    def __init__(self, domain: str) -> None:
        url = URL(f"//{domain}")
        self._named = {(url.host, url.explicit_port)}
        self._inner = aiohttp.ThreadedResolver()

    def allow(self, url: URL) -> None:
        """Except a proxy, which the administrator has named too."""
        self._named.add((url.host, url.port))

    def check(self, url: URL) -> None:
        """Refuse an address that stands in a URL as it is. Raises OSError."""
        if url.host and _is_address(url.host) and not self._excepted(url.host, url.port):
            _check(url.host, url.host)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a name. Raises OSError if it leads where it must not."""
        found = await self._inner.resolve(host, port, family)
        if not self._excepted(host, port):
            for each in found:
                _check(each["host"], host)
        return found

    async def close(self) -> None:
        """Nothing to do."""

    def _excepted(self, host: str | None, port: int | None) -> bool:
        return (host, port) in self._named or ((host, None) in self._named and port in (80, 443))


def is_public(text: str) -> bool:
    """Tell whether an address is one of the public internet."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if any(address in network for network in _TRANSLATED):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _check(address: str, host: str) -> None:
    if not is_public(address):
        told = host if host == address else f"{host} ({address})"
        raise PermissionError(errno.EACCES, f"it leads to {told}, which is not on the public internet")
