"""What an engine that was killed while it saved a machine has left in QEMU."""

from __future__ import annotations

import time
from typing import Any

from trivet.hypervisor.qmp import LENT, Qmp

PREFIX = "save-"
_STEP, _STEPS = 0.005, 400


def sweep(qmp: Qmp) -> None:
    """Remove jobs, copies, bitmaps and descriptors of an attempt that nobody goes on with."""
    for job in _ours(qmp.execute("query-jobs"), "id"):
        _end(qmp, job)
    for node in qmp.execute("query-named-block-nodes", flat=True):
        for bitmap in _ours(node.get("dirty-bitmaps", []), "name"):
            qmp.execute("block-dirty-bitmap-remove", node=node["node-name"], name=bitmap)
        if node["node-name"].startswith(PREFIX):
            qmp.execute("blockdev-del", **{"node-name": node["node-name"]})
    for fdset in qmp.execute("query-fdsets"):
        if any(each.get("opaque") == LENT for each in fdset["fds"]):
            qmp.execute("remove-fd", **{"fdset-id": fdset["fdset-id"]})


def _ours(rows: list[dict[str, Any]], key: str) -> list[str]:
    return [row[key] for row in rows if str(row.get(key, "")).startswith(PREFIX)]


def _end(qmp: Qmp, job: str) -> None:
    for _ in range(_STEPS):
        found = next((each["status"] for each in qmp.execute("query-jobs") if each["id"] == job), "gone")
        if found in ("gone", "concluded"):
            break
        if found == "running":
            qmp.execute("job-cancel", id=job)
        time.sleep(_STEP)
    if found == "concluded":
        qmp.execute("job-dismiss", id=job)
