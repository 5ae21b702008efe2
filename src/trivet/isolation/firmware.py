"""UEFI for machines, as Debian packages it, and the variables each machine has of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from trivet.base.error import Unsupported

_HOME = Path("/usr/share/OVMF")


class Edition(msgspec.Struct, frozen=True):
    """A program, and the variables a new machine begins with."""

    code: str
    variables: str


_PLAIN = Edition("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")
_SECURE = Edition("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd")
"""With the keys of Microsoft, by which Debian's shim is signed; only signed systems boot."""


def code(*, secure: bool) -> str:
    """Tell where the program is. Raises `Unsupported` when it isn't installed."""
    return str(_find(_edition(secure).code))


def provide(target: Path, *, secure: bool) -> None:
    """Give a new machine its variables."""
    shutil.copyfile(_find(_edition(secure).variables), target)
    target.chmod(0o600)


def _edition(secure: bool) -> Edition:
    return _SECURE if secure else _PLAIN


def _find(name: str) -> Path:
    path = _HOME / name
    if not path.exists():
        raise Unsupported(f"cannot give a machine UEFI: {path} is not there", hint="apt-get install ovmf")
    return path
