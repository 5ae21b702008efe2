"""The kernel of our guests: Debian's cloud kernel, taken from the machine's own mirror and never installed.

CACHE/kernel/
└── RELEASE/            complete, or not there: it is renamed into place
    ├── image           what QEMU is given: vmlinux where QEMU can start one, else vmlinuz
    └── modules/        lib/modules/RELEASE of the package
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from trivet.base.error import Corrupt, NotFound, Unavailable
from trivet.guest import vmlinux
from trivet.guest.module import Modules

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_DEPENDENCY = re.compile(r"^\s*Depends: (linux-image-\S+)$", re.MULTILINE)
_PATIENCE = 300  # seconds for a slow mirror


class NoKernel(Unavailable):
    """The guest kernel can't be had."""

    def __init__(self, cause: str, hint: str) -> None:
        super().__init__(f"cannot get a guest kernel: {cause}", hint=hint)


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """A guest kernel on disk."""

    release: str
    image: Path
    directory: Path

    def modules(self) -> Modules:
        """Open its modules."""
        return Modules(self.directory)


def obtain(cache: Path) -> Kernel:
    """Return the guest kernel from the cache, or download and unpack it there first.

    Needs apt's lists and the mirror only when the cache has none; lists that are missing, or older than the
    mirror, are refreshed once. Raises `NoKernel`.
    """
    found = cached(cache)
    if found is not None:
        return found
    try:
        return _install(cache / "kernel", _package())
    except NoKernel:
        if os.geteuid() != 0:
            raise
    run(["apt-get", "update", "-q"], Path("/"))
    return _install(cache / "kernel", _package())


def cached(cache: Path) -> Kernel | None:
    """Return the newest kernel in the cache; None when there is none."""
    found = [path for path in (cache / "kernel").glob("*") if (path / "image").exists()]
    return _at(max(found, key=_version)) if found else None


def _at(directory: Path) -> Kernel:
    return Kernel(release=directory.name, image=directory / "image", directory=directory / "modules")


def _version(directory: Path) -> list[int]:
    return [int(word) for word in re.findall(r"\d+", directory.name)]


def _package() -> str:
    """Resolve the meta package to the package that holds the kernel."""
    machine = platform.machine()
    meta = f"linux-image-cloud-{_ARCHITECTURES.get(machine, machine)}"
    found = _DEPENDENCY.search(run(["apt-cache", "depends", meta], Path("/")))
    if found is None:
        raise NoKernel(f"apt does not know the package {meta}", "apt-get update")
    return found[1]


def _install(store: Path, package: str) -> Kernel:
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=store) as scratch:
        ready = _unpack(_download(package, Path(scratch)), Path(scratch))
        final = store / ready.name
        try:
            ready.rename(final)
        except OSError:
            if not (final / "image").exists():  # another process was faster: its kernel is as good
                raise
    return _at(final)


def _download(package: str, scratch: Path) -> Path:
    scratch.chmod(0o755)  # apt downloads as user _apt where it can
    run(["apt-get", "download", "-q", package], scratch)
    found = next(scratch.glob("*.deb"), None)
    if found is None:
        raise NoKernel(f"apt-get download {package} left no file", "apt-get update")
    return found


def _unpack(deb: Path, scratch: Path) -> Path:
    tree, ready = scratch / "tree", scratch / "ready"
    run(["dpkg-deb", "-x", str(deb), str(tree)], scratch)
    image = next(tree.glob("boot/vmlinuz-*"), None)
    if image is None:
        raise Corrupt(f"kernel package {deb.name} has no boot/vmlinuz")
    release = image.name.removeprefix("vmlinuz-")
    modules = next((path for path in _module_trees(tree) if path.name == release), None)
    if modules is None:
        raise Corrupt(f"kernel package {deb.name} has no modules for {release}")
    ready.mkdir()
    shutil.move(modules, ready / "modules")
    compressed = image.read_bytes()
    (ready / "image").write_bytes(vmlinux.extract(compressed) or compressed)
    return ready.rename(scratch / release)


def _module_trees(tree: Path) -> list[Path]:
    return [*tree.glob("lib/modules/*"), *tree.glob("usr/lib/modules/*")]


def run(argv: list[str], directory: Path) -> str:
    """Run a program that talks to the mirror, or unpacks what came from it; return what it says. Raises `NoKernel`."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            argv, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE
        )
    except FileNotFoundError as error:
        raise NotFound(f"program {argv[0]} is not there: a guest kernel comes from a Debian mirror") from error
    except subprocess.TimeoutExpired as error:
        raise NoKernel(f"{' '.join(argv[:2])} took longer than {_PATIENCE} s", "check the network") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise NoKernel(f"{' '.join(argv)} failed: {said[-1]}", "check the network, then apt-get update")
    return done.stdout.decode(errors="replace")
