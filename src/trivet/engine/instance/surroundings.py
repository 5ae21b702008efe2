"""Where the host has what an instance is shown: its layers, and the files that the engine writes."""

from __future__ import annotations

import msgspec

from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of the host: `files` by their places inside, while it runs; `upper` is "" where the layers are no
    directories."""

    files: dict[str, str] = {}
    lowers: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""


def surroundings(record: InstanceRecord) -> Surroundings:
    """Tell them of one instance."""
    root = record.plan.root
    layered = root.form == "mount" and not root.copied
    runs = record.word in (Word.RUNNING, Word.PAUSED)
    return Surroundings(
        files={file.target: file.source for file in record.plan.files} if runs else {},
        lowers=root.lowers if layered else (),
        upper=root.upper if layered else "",
        work=root.work if layered else "",
    )
