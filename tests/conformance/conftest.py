"""A real instance at each level, from one fixture word.

root_tree ──▶ root_image ──▶ harness(level) ──▶ instance
busybox, users, tests/inside      driver, run directory, cgroup     run(), start(), exec() ...
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.harness import CGROUP, Harness
from tests.native import compiled
from tests.runtime import runtime as runtime

from trivet.isolation.driver import Driver
from trivet.isolation.plan import Level
from trivet.kernel import cgroup

INSIDE = Path(__file__).parents[1] / "inside"
DRIVERS = {
    Level.PROCESS: ("trivet.isolation.process", "ProcessDriver"),
    Level.CONTAINER: ("trivet.isolation.container", "ContainerDriver"),
    Level.VM: ("trivet.isolation.vm", "VmDriver"),
}
PASSWD = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann:/home/ann:/bin/sh\nbob:x:1001:50::/nowhere:/bin/sh\n"
GROUP = "root:x:0:\nstaff:x:50:ann\naudio:x:63:ann,bob\nann:x:1000:\nwheel:x:10:root\n"


@pytest.fixture(scope="session")
def root_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minimal root file system: busybox and its links, three users, the helper of tests/inside."""
    root = tmp_path_factory.mktemp("root") / "tree"
    for name in ("bin", "etc", "root", "home/ann", "tmp", "var", "opt/noexec", "proc", "sys", "dev"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    os.chown(root / "home/ann", 1000, 1000)
    shutil.copy(compiled("inside", [INSIDE / "inside.c"]), root / "bin/inside")
    (root / "opt/plain").write_text("not a program\n")
    (root / "opt/garbage").write_bytes(b"\x7fNOTELF" + bytes(64))
    (root / "opt/garbage").chmod(0o755)
    (root / "opt/orphan-script").write_text("#!/bin/no-such-interpreter\n")
    (root / "opt/orphan-script").chmod(0o755)
    return root


@pytest.fixture(scope="session")
def root_image(root_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tree as the read-only EROFS image that a level with drives asks for."""
    image = tmp_path_factory.mktemp("image") / "root.erofs"
    subprocess.run(["mkfs.erofs", "-x-1", image, root_tree], check=True, capture_output=True)
    return image


@pytest.fixture(params=[pytest.param(level, marks=[pytest.mark.vm] if level is Level.VM else []) for level in Level])
def level(request: pytest.FixtureRequest) -> Level:
    """Each isolation level in turn."""
    chosen: Level = request.param
    return chosen


@pytest.fixture
def driver(level: Level) -> Driver:
    """The level's real driver; skips when the machine lacks what it needs."""
    module, name = DRIVERS[level]
    made: Driver = getattr(importlib.import_module(module), name)()
    missing = made.ability().missing
    if missing:
        pytest.skip(f"{level} needs {', '.join(missing)}")
    return made


@pytest.fixture(scope="session", autouse=True)
def no_cgroups_left() -> Iterator[None]:
    """Remove the parent of the instances' cgroups; it is empty unless a test failed to clean up."""
    yield
    cgroup.Group(cgroup.detect(), CGROUP).remove()


@pytest.fixture
def run_directory() -> Iterator[Path]:
    """A short path on tmpfs: the paths of unix sockets are limited to 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="tc-", dir="/run"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def instance(
    driver: Driver, root_tree: Path, tmp_path: Path, run_directory: Path, request: pytest.FixtureRequest
) -> Iterator[Harness]:
    """An instance that isn't started yet: `instance.run(...)` runs a program in it to its end."""
    image = request.getfixturevalue("root_image") if driver.ability().root == "drive" else root_tree
    harness = Harness(driver, image, tmp_path, run_directory)
    try:
        yield harness
    finally:
        harness.close()
