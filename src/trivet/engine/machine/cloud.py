"""What trivet itself tells cloud-init: users, keys, a password, packages, and to look at the network at every boot."""

from __future__ import annotations

from typing import Any

import msgspec

from trivet.base.error import InvalidArgument
from trivet.client.schema_machine import MachineRequest
from trivet.isolation.hardware import Seed

_HEAD = "#cloud-config\n"
_KEYS = ("ssh-", "ecdsa-", "sk-")
_LIMIT = 1 << 20


def seed(wish: MachineRequest) -> Seed | None:
    """Compose it; None when nothing is to be told. Raises `InvalidArgument` for what can't be a key or is too long."""
    if not wish.cloud_init:
        return None
    for key in wish.ssh_keys:
        if not key.startswith(_KEYS) or "\n" in key.strip():
            raise InvalidArgument(f"{key[:40]!r} is no public SSH key", hint="--ssh-key ~/.ssh/id_ed25519.pub")
    if len(wish.user_data) + len(wish.network_config) > _LIMIT:
        raise InvalidArgument(f"user data and network configuration are longer than {_LIMIT} bytes")
    vendor = _HEAD + msgspec.json.encode(_settings(wish)).decode() + "\n"
    return Seed(vendor=vendor, user=wish.user_data, network=wish.network_config)


def _settings(wish: MachineRequest) -> dict[str, Any]:
    found: dict[str, Any] = {"updates": {"network": {"when": ["boot", "hotplug"]}}}
    keys = [key.strip() for key in wish.ssh_keys]
    if wish.user:
        person: dict[str, Any] = {"name": wish.user, "shell": "/bin/bash", "lock_passwd": not wish.password}
        if wish.user != "root":
            person["sudo"] = "ALL=(ALL) NOPASSWD:ALL"
        else:
            found["disable_root"] = False
        person |= {"passwd": wish.password} if wish.password else {}
        person |= {"ssh_authorized_keys": keys} if keys else {}
        found["users"] = [person]
    else:
        found |= {"ssh_authorized_keys": keys} if keys else {}
        found |= {"password": wish.password} if wish.password else {}
    if wish.password:
        found |= {"ssh_pwauth": True, "chpasswd": {"expire": False}}
    if wish.packages:
        found |= {"package_update": True, "packages": wish.packages}
    return found
