"""The files with names and resolvers of an instance whose networks change while it runs.

The file an instance is shown is the engine's copy: what is written to it is seen inside at once. A machine has copies
of its own, which are written by its agent, if it has one.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from trivet.engine.instance import link
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.isolation.driver import guided
from trivet.isolation.plan import File


def describe(context: Context, record: InstanceRecord) -> tuple[File, ...]:
    """Compute the files that tell an instance its names and resolvers, as they should be now."""
    request = record.request
    return context.networks.files(
        record.id,
        record.plan.hostname,
        context.place(record.id).files,
        dns=request.dns,
        dns_search=request.dns_search,
        dns_options=request.dns_options,
        extra_hosts=[*request.extra_hosts, *link.hosts(context, record)],
    )


def refresh(context: Context, record: InstanceRecord) -> InstanceRecord:
    """Rewrite what changed, but not what the instance has changed itself. Blocking; returns the new record."""
    before = {file.target: file.content for file in record.plan.files}
    files = describe(context, record)
    for file in files:
        path = Path(file.source)
        known = before.get(file.target)
        if known is not None and known != file.content and path.exists() and path.read_bytes() == known:
            path.write_bytes(file.content)  # the same file: it is what is mounted
    plan = msgspec.structs.replace(record.plan, files=files)
    driver = guided(context.driver(record))
    if driver and record.word is Word.RUNNING:
        driver.rewrite(plan, before)
    return record.change(plan=plan)
