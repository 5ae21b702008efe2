"""BuildKit's control API, as buildx speaks it: builds, what they tell, the cache.

A build without a frontend of its own (all of buildx's) waits for what its client returns by the gateway
(`gateway.py`): only then it is known what is wanted, and the builder makes it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any, BinaryIO

import msgspec
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream
from multidict import MultiDict

from trivet.api.docker import version
from trivet.api.docker.buildkit import frontend
from trivet.api.docker.buildkit.caller import SessionCaller
from trivet.api.docker.buildkit.channel import Channel
from trivet.api.docker.buildkit.context import fetch
from trivet.api.docker.buildkit.control_message import (
    Info,
    Kind,
    Platform,
    Ref,
    Return,
    Solve,
    Solved,
    Usage,
    Usages,
    Version,
    Worker,
    Workers,
    mapping,
    pairs,
)
from trivet.api.docker.buildkit.graph import NoGraphs
from trivet.api.docker.buildkit.message import Bytes, Empty, Time, Trace
from trivet.api.docker.buildkit.pipe import carry
from trivet.api.docker.buildkit.service import Failed, absent, answered, told
from trivet.api.docker.buildkit.solve import Job
from trivet.api.docker.buildkit.trace import Tracer
from trivet.api.docker.session import ID as SESSION
from trivet.api.docker.session import Sessions, Solves
from trivet.api.problem import as_trivet_error
from trivet.api.transfer import spooled
from trivet.base.error import InvalidArgument
from trivet.build.build import Builder
from trivet.client.schema import Progress, PruneRequest
from trivet.client.schema_build import BuildRequest
from trivet.engine.engine import Engine
from trivet.oci import platform as platforms
from trivet.registry.offer import asking

SERVICE = "/moby.buildkit.v1.Control"
ABSENT = ("ListenBuildHistory", "UpdateBuildHistory")
SNAPSHOTTER = (
    "org.mobyproject.buildkit.worker.snapshotter"  # with this label buildx lets exporters and caches be asked for
)
HOST_GATEWAY = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"
HOST_NAME = "org.mobyproject.buildkit.worker.hostname"


class Control:
    """What one connection of buildx can ask for."""

    def __init__(self, engine: Engine, builder: Builder, sessions: Sessions, jobs: Solves) -> None:
        """`sessions` and `jobs` are those of all connections."""
        self._engine = engine
        self._builder = builder
        self._sessions = sessions
        self._jobs = jobs
        self.promises: dict[str, tuple[Job, BuildRequest]] = {}  # what frontends were asked for, by result

    def __mapping__(self) -> dict[str, Handler]:
        """Tell grpclib what can be asked."""
        return {
            f"{SERVICE}/Solve": Handler(self._solve, Cardinality.UNARY_UNARY, Solve, Solved),
            f"{SERVICE}/Status": Handler(self._status, Cardinality.UNARY_STREAM, Ref, Trace),
            f"{SERVICE}/ListWorkers": Handler(self._workers, Cardinality.UNARY_UNARY, Empty, Workers),
            f"{SERVICE}/Info": Handler(self._info, Cardinality.UNARY_UNARY, Empty, Info),
            f"{SERVICE}/DiskUsage": Handler(self._usage, Cardinality.UNARY_UNARY, Empty, Usages),
            f"{SERVICE}/Prune": Handler(self._prune, Cardinality.UNARY_STREAM, Empty, Usage),
            f"{SERVICE}/Session": Handler(self._session, Cardinality.STREAM_STREAM, Bytes, Bytes),
            **absent(SERVICE, ABSENT),
        }

    async def _solve(self, stream: Stream[Solve, Solved]) -> None:
        request = await answered(stream)
        with told(), closing(Job(request.session)) as job, self._jobs.open(request.ref, job):
            if request.definition is not None and request.definition.operations:
                raise NoGraphs
            if request.frontend:
                job.returned.set_result(Return())
                wish: BuildRequest | None = frontend.wish(mapping(request.attributes))
            else:
                wish = self._wanted(await job.returned)
            result = await self.build(job, _complete(wish, request)) if wish else {}
            await stream.send_message(Solved(pairs(_response(result))))

    def _wanted(self, returned: Return) -> BuildRequest | None:
        """Find what a client has returned; None when it wanted no more than to look. Raises `Failed`."""
        if returned.error is not None and returned.error.code:
            raise Failed(returned.error.code, returned.error.message)
        ref = returned.result.ref.id if returned.result and returned.result.ref else ""
        if ref and ref not in self.promises:
            raise InvalidArgument(f"there is no result {ref[:64]}")
        return self.promises[ref][1] if ref else None

    async def build(self, job: Job, wish: BuildRequest) -> dict[str, Any]:
        """Make what a client wants, and tell how it goes on. Raises `TrivetError`."""
        channel = await self._sessions.find(job.session)
        wish = msgspec.structs.replace(wish, session=secrets.token_hex(16))
        caller = SessionCaller(channel, self._engine.spool, wish)
        tracer = Tracer()

        def report(item: Progress) -> None:
            job.tell(tracer.spell(item))

        try:
            with ExitStack() as undo:
                file: BinaryIO = undo.enter_context(spooled(self._engine.spool))
                undo.enter_context(self._builder.callers.present(wish.session, caller))
                undo.enter_context(asking(caller.credentials))
                wanted = await fetch(channel, wish, file, self._engine.spool, report)
                file.seek(0)
                result = await self._builder.build(wanted, file, report)
        except Exception as error:
            job.tell(tracer.failed(as_trivet_error(error).message))
            raise
        for trace in tracer.done(result):
            job.tell(trace)
        return {**result, "cache": caller.stored}

    async def _status(self, stream: Stream[Ref, Trace]) -> None:
        request = await answered(stream)
        with told():
            async for trace in (await self._jobs.find(request.id)).follow():
                await stream.send_message(trace)

    async def _session(self, stream: Stream[Bytes, Bytes]) -> None:
        """Let the client be asked on this stream, as on a connection of `POST /session`."""
        key = str((stream.metadata or MultiDict()).get(SESSION.lower(), ""))
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        channel = Channel()
        await asyncio.get_running_loop().create_unix_connection(lambda: channel.protocol, sock=ours)

        with told(), self._sessions.open(key, channel), closing(channel), closing(writer):
            await stream.send_initial_metadata()
            await carry(stream, reader, writer)

    async def _workers(self, stream: Stream[Empty, Workers]) -> None:
        await answered(stream)
        await stream.send_message(Workers([self.worker()]))

    async def _info(self, stream: Stream[Empty, Info]) -> None:
        await answered(stream)
        await stream.send_message(Info(_version()))

    async def _usage(self, stream: Stream[Empty, Usages]) -> None:
        await answered(stream)
        await stream.send_message(Usages(self._cached()))

    async def _prune(self, stream: Stream[Empty, Usage]) -> None:
        await answered(stream)
        with told():
            before = self._cached()
            await self._engine.prune(PruneRequest(kinds=["build"], all=True))
            left = {each.id for each in self._cached()}
            for each in before:
                if each.id not in left:
                    await stream.send_message(each)

    def _cached(self) -> list[Usage]:
        return [
            Usage(
                id=entry.key[:25],
                size=entry.layer.size if entry.layer else 0,
                created=Time(entry.time),
                used=Time(int(entry.used)),
                kind="regular",
            )
            for entry in self._builder.tools.cache.entries()
        ]

    def worker(self) -> Worker:
        """Tell of the one builder there is."""
        host = platforms.host()
        gateway = self._builder.tools.networks.find("bridge").gateway
        labels = {SNAPSHOTTER: "overlay", HOST_NAME: os.uname().nodename, HOST_GATEWAY: gateway}
        return Worker("trivet", pairs(labels), [Platform(host.architecture, host.os, host.variant or "")], _version())


def _version() -> Version:
    return Version("github.com/moby/buildkit", version.BUILDKIT)


def _complete(wish: BuildRequest, request: Solve) -> BuildRequest:
    """Add what only the control API is told: where the result and the cache go to, and what is allowed."""
    kinds = request.exporters or ([Kind(request.exporter, request.exporter_attributes)] if request.exporter else [])
    caches = request.cache
    return msgspec.structs.replace(
        wish,
        outputs=frontend.outputs(kinds),
        cache_to=frontend.cache_to(caches.exports if caches else ()),
        allow=[word for word in request.entitlements if word in frontend.ENTITLEMENTS],
    )


def _response(result: Mapping[str, Any]) -> dict[str, str]:
    """Tell what became of it, by BuildKit's names."""
    kept = result.get("cache")
    found = {"cache.manifest": msgspec.json.encode(kept).decode() if kept else ""}
    found |= {
        "containerimage.config.digest": result.get("id", ""),
        "containerimage.digest": result.get("digest") or result.get("id", ""),
        "image.name": ",".join(result.get("names", ())),
    }
    return {key: value for key, value in found.items() if value}
