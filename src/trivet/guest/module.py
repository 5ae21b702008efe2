"""Kernel modules: which file holds one, what it needs, in which order to load.

The dependencies are read from the modules themselves (section .modinfo): a package that was only
unpacked has no modules.dep, which depmod makes when it is installed.
"""

from __future__ import annotations

import re
from pathlib import Path

from trivet.base.error import NotFound

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_SIGNED = b"~Module signature appended~\n"
_SIGNATURE_TAIL = 12  # struct module_signature, linux include/linux/module_signature.h


class MissingModule(NotFound):
    """The kernel has neither a module of this name nor the thing built in."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(f"kernel module {name} is not in {directory}")


class Modules:
    """The modules below /lib/modules/RELEASE of an unpacked kernel package."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files = {_canonical(path.stem): path for path in directory.rglob("*.ko")}
        builtin = directory / "modules.builtin"
        lines = builtin.read_text().splitlines() if builtin.exists() else []
        self._builtin = {_canonical(Path(line).stem) for line in lines}

    def load_order(self, names: tuple[str, ...]) -> list[str]:
        """List the named modules and all they need, dependencies first; what is built in is left out."""
        order: list[str] = []
        for name in names:
            self._append(_canonical(name), order)
        return order

    def read(self, name: str) -> bytes:
        """Read a module without its signature: checking it costs an emulated guest some milliseconds each."""
        return _without_signature(self._files[name].read_bytes())

    def _append(self, name: str, order: list[str]) -> None:
        if name in order or name in self._builtin:
            return
        if name not in self._files:
            raise MissingModule(name, self.directory)
        for needed in self._needs(name):
            self._append(needed, order)
        order.append(name)

    def _needs(self, name: str) -> list[str]:
        found = _DEPENDS.search(self._files[name].read_bytes())
        return [_canonical(word) for word in found[1].decode().split(",") if word] if found else []


def _canonical(name: str) -> str:
    return name.replace("-", "_")


def _without_signature(data: bytes) -> bytes:
    if not data.endswith(_SIGNED):
        return data
    end = len(data) - len(_SIGNED)
    length = int.from_bytes(data[end - 4 : end], "big")
    return data[: end - _SIGNATURE_TAIL - length]
