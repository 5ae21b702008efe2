"""Debian's own installer, from its package: `make installer`. Emulated it takes minutes, so that it runs when asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.vm.box import NEEDS, said

from trivet.guest import kernel

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(3600),
    pytest.mark.needs(*NEEDS, "dpkg-deb"),
    pytest.mark.skipif("TRIVET_INSTALLER" not in os.environ, reason="make installer runs it"),
]
PACKAGE = "debian-installer-12-netboot-amd64"
PATIENCE = 3000.0
# An emulated timer on a busy host misses its beats, which a kernel takes for a broken one.
PARAMETERS = "console=ttyS0 auto=true priority=critical no_timer_check tsc=reliable"
# What the installer has understood is asked of its own store of answers, before it asks anything itself.
PRESEED = """d-i debian-installer/locale string en_US.UTF-8
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/get_hostname string answered-by-trivet
d-i preseed/early_command string \\
    echo "installer: $(debconf-get netcfg/get_hostname)" >/dev/ttyS0; \\
    poweroff -f
"""


def test_debians_installer_takes_the_answers(engine: Daemon, tmp_path: Path) -> None:
    """Started by kernel and RAM disk, it reads preseed.cfg, which it finds in its root, and does what that says."""
    tmp_path.chmod(0o755)
    kernel.run(["apt-get", "download", "-q", PACKAGE], tmp_path)
    kernel.run(["dpkg-deb", "-x", str(next(tmp_path.glob("*.deb"))), "tree"], tmp_path)
    home = next(tmp_path.glob("tree/usr/lib/debian-installer/images/*/amd64/text/debian-installer/amd64"))
    (tmp_path / "preseed.cfg").write_text(PRESEED)
    options = ["--kernel", str(home / "linux"), "--initrd", str(home / "initrd.gz"), "--memory", "512m"]
    options += ["--append", PARAMETERS, "--answer", str(tmp_path / "preseed.cfg")]
    engine.ok("vm", "create", "installed", *options, "--disk", "4g", "--network", "none", "--start")
    said(engine, "installed", "installer: answered-by-trivet", PATIENCE)
    engine.ok("wait", "installed", timeout=600)
    assert engine.client.instances.get("installed").exit_code == 0
    engine.ok("vm", "rm", "installed")
