"""What is wrong with a creation or an update, in Docker's words, before anything is made."""

from __future__ import annotations

import ipaddress
import os
import posixpath
import re
import signal

from trivet.api.docker.creation import Creation, Resources
from trivet.base.error import InvalidArgument
from trivet.engine.network.names import HOST_GATEWAY

LEAST = 6 << 20  # bytes: less, and nothing could be started
MAC = re.compile(r"(?i)[0-9a-f]{2}([:-][0-9a-f]{2}){5}")
SIGNALS = {name.removeprefix("SIG") for name in signal.Signals.__members__}


def creation(wish: Creation) -> None:
    """Check the whole body. Raises `InvalidArgument`."""
    limits(wish.host_config)
    host = wish.host_config
    for item in wish.env or ():
        if not item.partition("=")[0]:
            raise InvalidArgument(f"invalid environment variable: {item}")
    if wish.working_dir and not posixpath.isabs(wish.working_dir):
        words = "is invalid, it needs to be an absolute path"
        raise InvalidArgument(f"the working directory '{wish.working_dir}' {words}")
    if wish.stop_signal and not known_signal(wish.stop_signal):
        raise InvalidArgument(f"invalid signal: {wish.stop_signal}")
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    for text in host.extra_hosts or ():
        _host(text)
    if wish.mac_address and not MAC.fullmatch(wish.mac_address):
        raise InvalidArgument(f"invalid MAC address: {wish.mac_address}")
    if host.network_mode == "container:":
        raise InvalidArgument("invalid network mode: invalid container format container:<name|id>")
    if host.network_mode == "host" and host.links:
        words = "conflicting options: host type networking can't be used with links"
        raise InvalidArgument(f"{words}. This would result in undefined behavior")
    if host.cgroupns_mode not in ("", "private", "host"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if (host.shm_size or 0) < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if not -1000 <= (host.oom_score_adj or 0) <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.memory_swappiness != -1 and not 0 <= host.memory_swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")


def limits(host: Resources) -> None:
    """Check what is limited. Raises `InvalidArgument`."""
    memory, swap, reservation = host.memory or 0, host.memory_swap or 0, host.memory_reservation or 0
    if 0 < memory < LEAST:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if memory > 0 and 0 < swap < memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not memory and swap > 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < reservation < LEAST:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < memory < reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if (host.cpu_shares or 0) < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    _processors(host)


def _host(text: str) -> None:
    """Check `--add-host NAME:ADDRESS`."""
    name, _, address = text.partition(":")
    if not (name and address):
        raise InvalidArgument(f'bad format for add-host: "{text}"')
    if address != HOST_GATEWAY:
        try:
            ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise InvalidArgument(f'invalid IP address in add-host: "{address}"') from None


def known_signal(text: str) -> bool:
    """Tell whether there is a signal of this name or number."""
    word = text.upper().removeprefix("SIG")
    return word in SIGNALS or (text.isdigit() and 0 < int(text) < 65) or bool(re.fullmatch(r"RTM(IN|AX)[+-]\d+", word))


def _processors(host: Resources) -> None:
    count, nano, period, quota = os.cpu_count() or 1, host.nano_cpus or 0, host.cpu_period or 0, host.cpu_quota or 0
    if nano < 0 or nano > count * 10**9:
        words = f"as there are only {count} CPUs available"
        raise InvalidArgument(f"range of CPUs is from 0.01 to {count}.00, {words}")
    if period and not 1000 <= period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.cpuset_cpus:
        wanted = _numbers(host.cpuset_cpus)
        if not wanted <= set(range(count)):
            there = f"0-{count - 1}" if count > 1 else "0"
            problem = f"requested {host.cpuset_cpus}, available: {there}"
            raise InvalidArgument(f"Requested CPUs are not available - {problem}")


def _numbers(text: str) -> set[int]:
    """Read `0-2,4`. Raises `InvalidArgument`."""
    found: set[int] = set()
    for part in text.split(","):
        if not (match := re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)):
            raise InvalidArgument(f"Invalid value {text} for cpuset cpus: invalid format: {part}")
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found
