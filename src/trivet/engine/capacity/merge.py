"""Keeping like pages of machines once (KSM, Linux Documentation/admin-guide/mm/ksm.rst).

QEMU offers its guests' memory for it. It is off where nobody asked for it: who shares a page with others can find out
by the time that a write takes what they hold.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from trivet.base.error import Unsupported

_KSM = Path("/sys/kernel/mm/ksm")


def switch_on(ksm: Path = _KSM) -> None:
    """Have the kernel look for like pages. Raises `Unsupported` where it can't, or nobody may tell it to.

    As it comes, it looks at 20 MB a second at most, and keeps a page once only when it has seen it twice: on a host
    with many gigabytes that takes hours. Where it can, it is to choose its own pace (Linux 6.8); what runs already is
    somebody's choice.
    """
    run = ksm / "run"
    try:
        if run.read_text().strip() == "1":
            return
        with suppress(OSError):
            (ksm / "advisor_mode").write_text("scan-time")
        run.write_text("1")
    except OSError as error:
        raise Unsupported(f"cannot have like pages kept once: {run}: {error.strerror}") from error


def saved() -> int:
    """Tell what is saved on this host, in bytes; 0 where it is off."""
    try:
        if (_KSM / "run").read_text().strip() != "1":
            return 0
        return int((_KSM / "pages_sharing").read_text()) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
