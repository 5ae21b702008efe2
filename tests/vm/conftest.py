"""A real machine from one fixture word: the contract suite's harness, at level vm only."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.conformance.conftest import no_cgroups_left, root_image, root_tree, run_directory
from tests.conformance.harness import Harness
from tests.conftest import Daemon
from tests.vm.box import KEY
from tests.vm.tiny import PARAMETERS, agent, initrd

from trivet.isolation.vm import VmDriver

__all__ = ["no_cgroups_left", "root_image", "root_tree", "run_directory"]


@pytest.fixture(scope="session")
def driver() -> VmDriver:
    """The vm level; skips when the machine lacks what it needs."""
    made = VmDriver()
    missing = made.ability().missing
    if missing:
        pytest.skip(f"vm needs {', '.join(missing)}")
    return made


@pytest.fixture
def machine(driver: VmDriver, root_image: Path, tmp_path: Path, run_directory: Path) -> Iterator[Harness]:
    """A machine that isn't started yet."""
    harness = Harness(driver, root_image, tmp_path, run_directory)
    try:
        yield harness
    finally:
        harness.close()


@pytest.fixture
def make(root_image: Path, tmp_path: Path, run_directory: Path) -> Iterator[Callable[[VmDriver], Harness]]:
    """Machines that aren't started yet, as many as asked for."""
    made: list[Harness] = []

    def another(driver: VmDriver) -> Harness:
        number = str(len(made))
        (tmp_path / number).mkdir()
        (run_directory / number).mkdir()
        made.append(Harness(driver, root_image, tmp_path / number, run_directory / number))
        return made[-1]

    yield another
    for each in made:
        each.close()


@pytest.fixture
def bare_image(tmp_path: Path) -> Path:
    """An image of one static program: no shell, no library, no user, not even a directory to mount on."""
    tree = tmp_path / "bare"
    tree.mkdir()
    shutil.copy("/bin/busybox", tree / "uname")
    image = tmp_path / "bare.erofs"
    subprocess.run(["mkfs.erofs", image, tree], check=True, capture_output=True)
    return image


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """An engine that may be killed."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        made = Daemon(tmp_path_factory.mktemp("machines"), run)
        undo.callback(made.clean)
        made.start()
        yield made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that make a machine the tiny system."""
    return _options(*initrd(tmp_path_factory.mktemp("tiny") / "initrd"))


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that make a machine the tiny system with the distribution's guest agent."""
    scratch = tmp_path_factory.mktemp("talking")
    return _options(*initrd(scratch / "initrd", further=agent(scratch)))


def _options(kernel: Path, system: Path) -> list[str]:
    options = ["--kernel", str(kernel), "--initrd", str(system), "--append", PARAMETERS]
    return [*options, "--memory", "256m", "--disk", "1g", "--ssh-key", KEY, "--network", "none"]
