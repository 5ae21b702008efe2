"""An interface for an instance, in the form its level asks for, reachable from the host.

netns   host ─ veth ─▶ │ network namespace of the instance │
tap     host ─ bridge ─ tap ─▶ │ machine │
host    the instance uses the host's loopback
"""

from __future__ import annotations

import ipaddress
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from trivet.isolation.owner import hold
from trivet.isolation.plan import Address, Attachment, Owner

RANGE = ipaddress.ip_network("198.18.0.0/15")  # RFC 2544's range for tests


class Link(msgspec.Struct, frozen=True):
    """What the plan gets, the address at which the instance answers, and the host's on the same link."""

    attachment: Attachment
    address: str
    host: str


def _pair() -> tuple[str, str]:
    """Choose the two addresses of a random /30, so that runs side by side don't meet."""
    base = RANGE[4 * secrets.randbelow(RANGE.num_addresses // 4)]
    return str(base + 1), str(base + 2)


@contextmanager
def link(form: str, owner: Owner | None = None) -> Iterator[Link]:
    """Make it, and take it away again; a network namespace belongs to the instance's owner."""
    word = secrets.token_hex(3)
    with ExitStack() as undo:
        yield _FORMS[form](word, undo, owner)


def _host(word: str, undo: ExitStack, owner: Owner | None) -> Link:
    return Link(Attachment(kind="host", network=""), "127.0.0.1", "127.0.0.1")


def _netns(word: str, undo: ExitStack, owner: Owner | None) -> Link:
    host, guest = _pair()
    name, here, there = f"tt-{word}", f"th{word}", f"tg{word}"
    if owner:
        Path("/run/netns").mkdir(exist_ok=True)
        hold(owner, f"/run/netns/{name}")
    else:
        _ip("netns", "add", name)
    undo.callback(_ip, "netns", "delete", name)
    _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
    _ip("addr", "add", f"{host}/30", "dev", here)
    _ip("link", "set", here, "up")
    return Link(_attachment("netns", there, host, guest, path=f"/run/netns/{name}"), guest, host)


def _tap(word: str, undo: ExitStack, owner: Owner | None) -> Link:
    host, guest = _pair()
    bridge, tap = f"tb{word}", f"tt{word}"
    _ip("link", "add", bridge, "type", "bridge")
    undo.callback(_ip, "link", "delete", bridge)
    _ip("addr", "add", f"{host}/30", "dev", bridge)
    _ip("link", "set", bridge, "up")
    _ip("tuntap", "add", tap, "mode", "tap")
    undo.callback(_ip, "link", "delete", tap)
    _ip("link", "set", tap, "master", bridge, "up")
    return Link(_attachment("tap", tap, host, guest), guest, host)


def _attachment(kind: str, device: str, host: str, guest: str, path: str = "") -> Attachment:
    return Attachment(
        kind=kind,  # type: ignore[arg-type]
        network="test",
        device=device,
        path=path,
        mac="02:00:c6:12:5d:02",
        addresses=(Address(address=f"{guest}/30", gateway=host),),
    )


_FORMS = {"host": _host, "netns": _netns, "tap": _tap}


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)
