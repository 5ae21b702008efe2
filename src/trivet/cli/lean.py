"""Imports msgspec and argparse without what they take along for things that no command does: a sixth of all imports.

A command is a program that begins anew each time, and most of its time is imports. What is put in the place of a
module is gone again when this one is there, so whoever imports the real one gets it.
"""

from __future__ import annotations

import _datetime  # type: ignore[import-not-found]
import gc
import sys
from types import ModuleType


def _stand_in(name: str, **names: object) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(names)
    return module


_STAND_INS = {
    "typing_extensions": None,  # to the import system: isn't there; then msgspec takes the same from typing
    "datetime": _datetime,  # which replaces what that module defines in Python first
    "uuid": _stand_in("uuid", UUID=type("UUID", (), {}), SafeUUID=type("SafeUUID", (), {"unknown": None})),
    "decimal": _stand_in("decimal", Decimal=type("Decimal", (), {})),
    "textwrap": _stand_in("textwrap"),  # for JSON schemas
    "gettext": _stand_in("gettext", gettext=str, ngettext=lambda one, several, number: one if number == 1 else several),
}


def _import() -> None:
    gc.disable()  # nothing becomes garbage
    absent = [name for name in _STAND_INS if name not in sys.modules]
    for name in absent:
        sys.modules[name] = _STAND_INS[name]
    try:
        import argparse  # noqa: F401

        import msgspec  # noqa: F401
    finally:
        for name in absent:
            del sys.modules[name]
        gc.enable()


if "msgspec" not in sys.modules:
    _import()
