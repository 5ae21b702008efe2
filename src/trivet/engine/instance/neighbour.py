"""Names that come and go: who runs on the same networks is told of an instance's addresses by its /etc/hosts.

The file an instance is shown is the engine's copy: what is written to it is seen inside at once. A machine has a
copy of its own and knows whom it met when it started.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from trivet.base.error import TrivetError
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word

log = logging.getLogger(__name__)

HOSTS = "/etc/hosts"


def tell(context: Context, key: str, others: Iterable[str] = ()) -> None:
    """Write the hosts files of an instance, of those that find it by name, and of `others` anew. Blocking."""
    try:
        for other in {key, *context.networks.neighbours(key), *others}:
            record = context.table.get(other)
            if record and record.word in (Word.RUNNING, Word.PAUSED) and record.request.isolation != "vm":
                _write(context, record)
    except (TrivetError, OSError) as error:  # a full disk, a network just removed: names are late, the instance is not
        log.warning("cannot tell the names on the networks of instance %s: %s", key[:12], error)


def _write(context: Context, record: InstanceRecord) -> None:
    path = next((Path(file.source) for file in record.plan.files if file.target == HOSTS), None)
    if path is None or path.parent != context.place(record.id).files:  # shared with the instance whose network it uses
        return
    content = context.networks.hosts(record.id, record.plan.hostname, record.request.extra_hosts)
    if path.exists() and path.read_bytes() != content:
        path.write_bytes(content)  # the same file: it is what is mounted
