"""Machines that boot from the network: a boot ROM, DHCP and TFTP, a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.vm.box import NEEDS, asked, said
from tests.vm.tiny import initrd, loadable

pytestmark = [pytest.mark.vm, pytest.mark.needs(*NEEDS)]
SCRIPT = """#!ipxe
echo trivet serves ${filename}
kernel linux console=ttyS0 quiet tsc=reliable no_timer_check
initrd initrd
boot
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a script, a kernel as loaders want it, and the tiny system."""
    home = tmp_path_factory.mktemp("served")
    for place in (home, *home.parents[:2]):
        place.chmod(0o755)
    initrd(home / "initrd")
    loadable(tmp_path_factory.mktemp("package"), home / "linux")
    (home / "boot.ipxe").write_text(SCRIPT)
    for file in home.iterdir():
        file.chmod(0o644)
    return home


def test_a_machine_boots_from_the_network_to_its_end(engine: Daemon, served: Path) -> None:
    """It loads script, kernel and RAM disk from a directory, beside a network of its own, and is switched off."""
    engine.ok("vm", "create", "net", "--pxe", served, "--memory", "512m", "--disk", "64m", "--start")
    log = said(engine, "net", "tiny# ")
    assert "tiny: vda root" in log
    asked(engine, "net", "echo cards $(ls /sys/class/net | wc -l)", "cards 3")
    engine.ok("vm", "stop", "net")
    assert engine.client.instances.get("net").exit_code == 0
    engine.ok("vm", "rm", "net")


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("/none", "is no directory"),
        (":none.0", "has no file none.0"),
        (":../x", "has no file"),
        (":secret", "only its owner"),
    ],
)
def test_what_cannot_be_served_is_refused(engine: Daemon, served: Path, what: str, complaint: str) -> None:
    """A directory or file that isn't there, lies elsewhere, or that nobody may read makes no machine."""
    (served / "secret").write_bytes(b"x")
    (served / "secret").chmod(0o600)
    wanted = what if what.startswith("/") else f"{served}{what}"
    assert complaint in engine.trivet("vm", "create", "wrong", "--pxe", wanted).stderr.decode()
    assert engine.trivet("vm", "info", "wrong").returncode == 1
