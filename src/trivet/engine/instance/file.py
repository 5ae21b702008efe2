"""The files every instance is given: /etc/hosts, /etc/resolv.conf, /etc/hostname."""

from __future__ import annotations

from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.isolation.plan import Attachment, File


def write_files(context: Context, record: InstanceRecord, use: Attachment) -> tuple[File, ...]:
    """Write them anew for this start (addresses may have changed); returns them for the plan."""
    directory = context.place(record.id).state / "file"
    directory.mkdir(mode=0o755, exist_ok=True)
    contents = context.networks.files(use, record.plan.hostname, record.request)
    files = []
    for target, content in contents.items():
        path = directory / target.rsplit("/", 1)[1]
        path.write_bytes(content)
        path.chmod(0o644)
        files.append(File(target=target, source=str(path), content=content))
    return tuple(files)
