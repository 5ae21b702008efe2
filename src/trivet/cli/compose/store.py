"""Networks and volumes of an application: what they are called, and the requests that make them."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from trivet.cli import value
from trivet.cli.compose.document import ComposeError
from trivet.cli.compose.merge import Value
from trivet.cli.compose.project import Project
from trivet.client.schema_network import NetworkRequest
from trivet.client.schema_volume import VolumeRequest

PROJECT = "com.docker.compose.project"


def network_name(project: Project, key: str) -> str:
    """Name a network. Raises `ComposeError` when the file doesn't define it."""
    return _name(project, "networks", project.networks, key, implied=key == "default")


def volume_name(project: Project, key: str) -> str:
    """Name a volume. Raises `ComposeError` when the file doesn't define it."""
    return _name(project, "volumes", project.volumes, key)


def _name(project: Project, kind: str, known: Value, key: str, *, implied: bool = False) -> str:
    if key not in known and not implied:
        raise ComposeError(kind, f"there is no {key!r}", f"add {key}: to {kind}:")
    found: Value = known.get(key) or {}
    if is_external(found):
        return outside_name(found, key)
    return str(found.get("name") or f"{project.name}_{key}")


def outside_name(found: Value, key: str) -> str:
    """Name what is external."""
    external = found.get("external")
    return str((external.get("name") if isinstance(external, dict) else "") or found.get("name") or key)


def is_external(found: Value | None) -> bool:
    """Tell whether somebody else makes it."""
    external = (found or {}).get("external")
    return isinstance(external, dict) or truth(external, "external")


def truth(found: Any, place: str) -> bool:
    """Read what is true or false, also as a text that a variable was put into. Raises `ComposeError`."""
    try:
        return found if isinstance(found, bool) else found is not None and value.boolean(str(found))
    except ArgumentTypeError as error:
        raise ComposeError(place, str(error)) from error


def _labels(project: Project, kind: str, key: str, found: Value) -> dict[str, str]:
    own = found.get("labels") or {}
    pairs = own.items() if isinstance(own, dict) else [tuple(str(one).partition("=")[::2]) for one in own]
    return {**{str(name): str(text) for name, text in pairs}, PROJECT: project.name, f"com.docker.compose.{kind}": key}


def _options(found: Value) -> dict[str, str]:
    return {key: str(value) for key, value in (found.get("driver_opts") or {}).items()}


def network(project: Project, key: str) -> NetworkRequest:
    """Build the request for a network. Raises `ComposeError`."""
    found: Value = project.networks.get(key) or {}
    for one in found:
        if one not in _NETWORK and not one.startswith("x-"):
            raise ComposeError(f"networks.{key}.{one}", "is not supported", f"known are {', '.join(_NETWORK)}")
    _refuse(key, found)
    ranges: dict[str, Any] = {}
    for pool in (found.get("ipam") or {}).get("config") or ():
        six = "6" if ":" in str(pool.get("subnet", "")) else ""
        ranges[f"subnet{six}"] = str(pool.get("subnet", ""))
        ranges[f"gateway{six}"] = str(pool.get("gateway", ""))
        if pool.get("ip_range") and not six:
            ranges["ip_range"] = str(pool["ip_range"])
    return NetworkRequest(
        name=network_name(project, key),
        driver=str(found.get("driver") or "bridge"),
        internal=truth(found.get("internal"), f"networks.{key}.internal"),
        ipv4=truth(found.get("enable_ipv4", True), f"networks.{key}.enable_ipv4"),
        ipv6=truth(found.get("enable_ipv6"), f"networks.{key}.enable_ipv6") or "subnet6" in ranges,
        labels=_labels(project, "network", key, found),
        options=_options(found),
        **ranges,
    )


def _refuse(key: str, found: Value) -> None:
    how = found.get("ipam") or {}
    if how.get("driver") not in (None, "default"):
        raise ComposeError(f"networks.{key}.ipam.driver", f"{how['driver']!r} is not supported", "leave it away")
    if how.get("options"):
        raise ComposeError(f"networks.{key}.ipam.options", "is not supported: there is no driver to read them")


_NETWORK = "name driver driver_opts internal external ipam enable_ipv6 enable_ipv4 labels attachable".split()


def volume(project: Project, key: str) -> VolumeRequest:
    """Build the request for a volume. Raises `ComposeError`."""
    found: Value = project.volumes.get(key) or {}
    known = ("name", "driver", "driver_opts", "external", "labels")
    for one in found:
        if one not in known and not one.startswith("x-"):
            raise ComposeError(f"volumes.{key}.{one}", "is not supported", f"known are {', '.join(known)}")
    return VolumeRequest(
        name=volume_name(project, key),
        driver=str(found.get("driver") or "local"),
        labels=_labels(project, "volume", key, found),
        options=_options(found),
    )
