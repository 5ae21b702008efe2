"""Disks with Debian on them, made from the machine's own package sources: `debian/12` or `debian/bookworm`.

mmdebstrap installs the system into a directory, which becomes a disk that boots by BIOS, UEFI and Secure Boot: Debian's
kernel, cloud-init, an SSH server and QEMU's guest agent, nothing else. Nothing is mounted, no loop device is needed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from pathlib import Path

from trivet.base.error import InvalidArgument
from trivet.client.schema import Progress
from trivet.engine.image import apt, bootstrap
from trivet.engine.image.progress import Report
from trivet.guest import bootable
from trivet.oci import platform as platforms

SUITES = {"11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"}
REFERENCE = re.compile(r"debian/([a-z0-9]{1,20})")
SIZE = 2 << 30
PACKAGES = (
    "linux-image-cloud-{architecture} initramfs-tools zstd systemd-sysv systemd-resolved libnss-resolve dbus udev "
    "e2fsprogs cloud-init cloud-guest-utils openssh-server qemu-guest-agent sudo iproute2 netbase ca-certificates"
)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_CLOUD = """datasource_list: [NoCloud, None]
apt: {preserve_sources_list: true}
locale: false
grub_dpkg: {enabled: false}
ssh_genkeytypes: [ed25519, ecdsa]
no_ssh_fingerprints: true
ssh: {emit_keys_to_console: false}
"""
_MASKED = "apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service"
HOOKS = (
    'printf "LABEL=root / ext4 defaults,discard,errors=remount-ro 0 1\\n" > "$1/etc/fstab"',
    'rm -f "$1/etc/hostname" "$1"/etc/ssh/ssh_host_*; : > "$1/etc/machine-id"',
    'ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"',
    f"printf '%s' '{_CLOUD}' > \"$1/etc/cloud/cloud.cfg.d/90_trivet.cfg\"",
    'mkdir -p "$1/etc/systemd/system/systemd-networkd-wait-online.service.d"; '
    'printf "[Service]\\nTimeoutStartSec=60\\n" '
    '> "$1/etc/systemd/system/systemd-networkd-wait-online.service.d/patience.conf"',
    'chroot "$1" systemctl --quiet enable systemd-networkd systemd-resolved',
    f'chroot "$1" systemctl --quiet mask {_MASKED}',
)


class UnknownDebian(InvalidArgument):
    """A release that isn't one."""

    def __init__(self, reference: str) -> None:
        known = ", ".join(f"debian/{number}" for number in SUITES)
        super().__init__(f"cannot bootstrap {reference}: it is no release of Debian", hint=f"known are {known}")


def suite_of(reference: str) -> str:
    """Tell which suite a reference means; "" when it is none of ours. Raises `UnknownDebian`."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        return ""
    suite = SUITES.get(match[1], match[1])
    if not suite.isalpha():
        raise UnknownDebian(reference)
    return suite


def obtain(suite: str, cache: Path, report: Report) -> Path:
    """Return the disk of a suite, a raw image in the cache, made if there is none of these sources and packages.

    Raises what bootstrapping an image raises, and what making a disk does.
    """
    found = bootstrap.sources_of("debian", suite)
    recipe = "\n".join([suite, PACKAGES, *HOOKS, *(source.deb822() for source in found)])
    target = cache / "machine" / f"debian-{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.raw"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as scratch:
            _make(suite, found, Path(scratch), cache, report)
            Path(scratch, "disk.raw").rename(target)  # another engine that was faster made as good a one
    return target


def _make(suite: str, found: list[apt.Source], scratch: Path, cache: Path, report: Report) -> None:
    name = f"debian/{suite}"
    report(Progress(id="bootstrap", status=f"making {name} from this machine's package sources"))
    tree = scratch / "tree"
    time = bootstrap.epoch_of(each for source in found for each in source.suites)
    bootstrap.install(_command(suite, found, tree), name, time, report)
    report(Progress(id="bootstrap", status="making the disk"))
    bootable.make(tree, scratch / "disk.raw", SIZE, cache)
    shutil.rmtree(tree)
    report(Progress(id="bootstrap", status=f"made {name}"))


def _command(suite: str, found: list[apt.Source], tree: Path) -> list[str]:
    """Compose the command line, in a mount namespace of its own so that nothing stays mounted, whatever happens."""
    host = platforms.host()
    packages = PACKAGES.format(architecture=platforms.DEBIAN.get(host.architecture, host.architecture))
    command = ["unshare", "--mount", "--propagation", "private", "mmdebstrap", "--mode=root", "--variant=minbase"]
    command += ["--format=directory", "--dpkgopt=force-unsafe-io", f"--include={','.join(packages.split())}"]
    command += [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
    command += [f"--aptopt={setting}" for setting in apt.settings()]
    command += [f"--customize-hook={hook}" for hook in (*bootstrap.key_hooks(found), *HOOKS)]
    file = tree.with_name("trivet.sources")
    file.write_text("\n".join(source.deb822() for source in found))
    return [*command, suite, str(tree), str(file)]
