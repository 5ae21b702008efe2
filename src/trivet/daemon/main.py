"""What `trivetd` begins with: aiohttp's server without its client, which only pulls and the like need.

`import aiohttp` runs a module that imports all of the client, 4 MB of memory and half of the time that importing the
server takes. So the package is put there without running it; who asks it for a name has it run then.
"""

from __future__ import annotations

import sys
import threading
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any


def main(arguments: list[str] | None = None) -> int:
    """Run the engine until SIGTERM or SIGINT; returns the exit status."""
    defer_client()
    from trivet.daemon import serve  # what it imports is the point

    return serve.main(arguments)


def defer_client() -> None:
    """Let `aiohttp` be a package whose own names, as ClientSession, are there with the first that is asked for."""
    spec = None if "aiohttp" in sys.modules else find_spec("aiohttp")
    if spec is None or spec.loader is None or spec.origin is None:
        return  # it is imported already, or not there: then the import says so
    package = module_from_spec(spec)
    vars(package).update(__version__="", __getattr__=_Names(package, spec))
    sys.modules["aiohttp"] = package


class _Names:
    """The module's `__getattr__` (PEP 562) until the module has been run."""

    def __init__(self, package: ModuleType, spec: ModuleSpec) -> None:
        self._package, self._spec = package, spec
        self._lock, self._running = threading.RLock(), False

    def __call__(self, name: str) -> Any:
        directory = Path(str(self._spec.origin)).parent
        # Of a submodule `from aiohttp import web` asks first whether it is a name; then it is imported.
        if name.startswith("__") or (directory / f"{name}.py").exists():
            raise AttributeError(name)
        with self._lock:
            if self._running:
                raise AttributeError(name)
            if "__getattr__" in vars(self._package):
                self._run()
        try:
            return vars(self._package)[name]
        except KeyError:
            raise AttributeError(f"module 'aiohttp' has no attribute {name!r}") from None

    def _run(self) -> None:
        self._running = True
        try:
            if self._spec.loader:
                self._spec.loader.exec_module(self._package)
        finally:
            self._running = False
        vars(self._package).pop("__getattr__", None)
