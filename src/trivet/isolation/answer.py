"""Answers for installers, where each of them looks.

A USB stick has them all: Windows looks for autounattend.xml on any, Red Hat's installer for ks.cfg on one labelled
OEMDRV. Debian's wants preseed.cfg in its initial RAM disk, which gets it where a kernel is started directly. What
Ubuntu's reads is cloud-init's user-data.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from trivet.guest import cpio
from trivet.isolation import computer, seed
from trivet.isolation.plan import Plan

_ALIGNMENT = 4


def prepare(plan: Plan) -> None:
    """Write what a machine's start needs of them."""
    parts, home = computer.hardware(plan), Path(plan.directory)
    if not parts.answers:
        return
    contents = {answer.name: answer.content.encode() for answer in parts.answers}
    seed.drive(home / computer.STICK, "OEMDRV", contents)
    if parts.direct and parts.direct.initrd:
        target = home / computer.INITRD
        shutil.copyfile(parts.direct.initrd, target)
        with target.open("ab") as file:  # the kernel unpacks one archive after the other
            file.write(bytes(-file.tell() % _ALIGNMENT))
            file.write(cpio.archive([cpio.file(name, content) for name, content in contents.items()]))
        target.chmod(0o644)  # for a QEMU that isn't root; nobody else comes there
