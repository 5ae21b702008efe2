"""The builder: a context and a request go in, an image comes out.

HOME/                     below the engine's root
├── stub/                 mount targets that images may lack (see `stub`)
├── cache/<digest of id>/ what RUN --mount=type=cache keeps between builds (see `kept`)
└── work/<random>/        one build: spool (contents), root (mount point), file (/etc/hosts ...), stub (further targets)

What a killed build leaves (work directories, snapshots, containers, addresses) is removed by
`cleanup` when the engine starts; its layers go with the next collection, since its lease ends then.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterable
from typing import Any

from trivet.build.caller import Callers
from trivet.build.sandbox import Command, cgroup_of, make_plan, run_directory
from trivet.build.stub import make_common
from trivet.build.tool import PREFIX, Report, Tools
from trivet.client.schema_build import BuildRequest
from trivet.engine.image.commit import Draft
from trivet.engine.snapshot.snapshotter import Layered
from trivet.engine.snapshot.stream import Readable
from trivet.isolation.plan import Attachment, Root

UNUSED = 30 * 86400  # seconds after which a step that was of no use is forgotten


class Builder:
    """Builds images for one engine; several builds may run at once."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.callers = Callers()
        self.drafts: dict[str, Draft] = {}
        self.locks: dict[str, asyncio.Lock] = {}
        tools.images.unpacked.append(self.layered)
        make_common(tools.home)
        (tools.home / "work").mkdir(mode=0o700, exist_ok=True)

    async def build(self, request: BuildRequest, context: Readable, report: Report) -> dict[str, Any]:
        """Build an image from a context's tar (plain, gzip or zstd); return its `id` and `names`.

        Raises `BuildError` (with file and line where there is one) and what images, networks and
        levels raise. Cancelling it stops the running step; either way nothing half-made is left.
        """
        from trivet.build import making  # what reads and follows Dockerfiles takes megabytes

        return await making.make(self, request, context, report)

    def cleanup(self) -> None:
        """Remove what builds that were killed have left, and forget old steps. Call it when no build runs."""
        self.tools.cache.prune(unused_since=time.time() - UNUSED)
        self.tools.offered.sweep()
        for instance in self.tools.snapshotter.instances():
            if instance.startswith(PREFIX):
                self._release(instance)
                self.tools.snapshotter.remove(instance)
        shutil.rmtree(self.tools.home / "work", ignore_errors=True)
        (self.tools.home / "work").mkdir(mode=0o700)

    def layered(self) -> Iterable[Layered]:
        """List what must stay unpacked: the drafts of running builds, and the cache."""
        return [*self.drafts.values(), *self.tools.cache.entries()]

    def _release(self, instance: str) -> None:
        """End a step that outlived its engine: its container and its address."""
        nobody = Command(argv=(), env={}, cwd="/", user="", network="none")
        plan = make_plan(
            instance,
            nobody,
            root=Root(form="mount", lowers=(), upper=""),
            run=run_directory(self.tools.run, instance),
            cgroup=cgroup_of(self.tools.cgroup, instance),
            secret={},
            attachment=Attachment(kind="none", network="none"),
        )
        self.tools.driver.release(plan)
        self.tools.networks.release(instance)
