"""Addresses: which subnet a network gets, and which address an instance.

What is taken is told by the records; a `Pool` only remembers where it stopped looking, so that an
address rests as long as possible before somebody else gets it (neighbours and connections remember it).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Sequence

from trivet.base.error import AlreadyExists, Exhausted, InvalidArgument

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
_V4 = ipaddress.IPv4Network

# Where subnets come from, best first: a range and how it is divided.
DEFAULT_RANGES = ((_V4("172.24.0.0/13"), 20), (_V4("10.208.0.0/12"), 24))  # the default network of an engine
USER_RANGES = ((_V4("10.208.0.0/12"), 24),)  # every other network


class NoAddressLeft(Exhausted):
    """A network whose every address is reserved."""

    def __init__(self, subnet: Subnet) -> None:
        hint = "remove instances, or create a network with a larger --subnet"
        super().__init__(f"no address is left in subnet {subnet}", hint=hint)


def free_subnet(ranges: Sequence[tuple[Subnet, int]], used: Iterable[Subnet]) -> Subnet:
    """Choose the first subnet of some ranges that overlaps nothing in `used`. Raises `Exhausted`."""
    taken = [network for network in used if network.prefixlen]
    for whole, prefix in ranges:
        obstacles = [network for network in taken if network.version == whole.version and network.overlaps(whole)]
        for subnet in whole.subnets(new_prefix=prefix):
            if not any(subnet.overlaps(obstacle) for obstacle in obstacles):
                return subnet
    places = " and ".join(str(whole) for whole, _ in ranges)
    raise Exhausted(f"no free subnet is left in {places}", hint="give one with --subnet")


def local_range(*names: str) -> ipaddress.IPv6Network:
    """Choose a /48 of unique local addresses (RFC 4193): the same for the same names, nobody else's."""
    number = hashlib.sha256("\0".join(names).encode()).digest()[:5]
    return ipaddress.IPv6Network((b"\xfd" + number + bytes(10), 48))


def mac_of(address: Address) -> str:
    """Derive a locally administered MAC from an address: unique on its network, and the same again after a restart."""
    if address.version == 4:
        return (b"\x02\x74" + address.packed).hex(":")
    return (b"\x06" + hashlib.sha256(address.packed).digest()[:5]).hex(":")


class Pool:
    """The addresses of one network. Not thread-safe; the owner locks."""

    def __init__(
        self, subnet: Subnet, gateway: Address, taken: Iterable[Address] = (), within: Subnet | None = None
    ) -> None:
        self.subnet = subnet
        self._within = within or subnet
        self._reserved = {int(subnet.network_address), int(gateway)}
        if subnet.version == 4:
            self._reserved.add(int(subnet.broadcast_address))
        self._taken = {int(address) for address in taken}
        inside = [number for number in self._taken if type(subnet.network_address)(number) in self._within]
        self._next = max(inside, default=int(self._within.network_address)) + 1

    def allocate(self, wanted: str = "", elsewhere: Collection[int] = ()) -> Address:
        """Take the next free address, or the one asked for. What is taken `elsewhere` isn't chosen.

        Raises `NoAddressLeft`, `AlreadyExists` when it is taken, `InvalidArgument` when it can't be one.
        """
        number = self._check(wanted) if wanted else self._search(elsewhere)
        self._taken.add(number)
        return type(self.subnet.network_address)(number)

    def release(self, address: Address) -> None:
        """Give an address back; one that is free is fine."""
        self._taken.discard(int(address))

    def _check(self, wanted: str) -> int:
        try:
            address = type(self.subnet.network_address)(wanted)
        except ValueError as error:
            raise InvalidArgument(f"{wanted} is not an IPv{self.subnet.version} address") from error
        if address not in self.subnet:
            raise InvalidArgument(f"address {address} is not in subnet {self.subnet}")
        if int(address) in self._reserved:
            raise InvalidArgument(f"address {address} is reserved in subnet {self.subnet}")
        if int(address) in self._taken:
            raise AlreadyExists(f"address {address} is already in use")
        return int(address)

    def _search(self, elsewhere: Collection[int]) -> int:
        first, size = int(self._within.network_address), self._within.num_addresses
        start = self._next - first
        for step in range(size):
            number = first + (start + step) % size
            if number not in self._taken and number not in self._reserved and number not in elsewhere:
                self._next = number + 1
                return number
        raise NoAddressLeft(self.subnet)
