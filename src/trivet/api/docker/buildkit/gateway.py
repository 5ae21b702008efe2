"""BuildKit's gateway, as buildx uses it: the Dockerfile frontend, by name, with attributes.

What it makes is no more than a name for a request to the builder, until the client returns that name (`control.py`).
Questions about a Dockerfile (`--check`, `--call`) are answered at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

from trivet.api.docker.buildkit import frontend, graph
from trivet.api.docker.buildkit.control import Control
from trivet.api.docker.buildkit.control_message import (
    Ability,
    Blob,
    FrontendSolve,
    FrontendSolved,
    Input,
    Pong,
    Ref,
    Result,
    Return,
    mapping,
)
from trivet.api.docker.buildkit.frontend_call import called
from trivet.api.docker.buildkit.graph import NoGraphs
from trivet.api.docker.buildkit.message import Empty
from trivet.api.docker.buildkit.service import absent, answered, told
from trivet.api.docker.buildkit.solve import Job
from trivet.api.docker.session import Solves
from trivet.base.error import InvalidArgument
from trivet.build.origin import IMAGE
from trivet.client.schema_build import Output

SERVICE = "/moby.buildkit.v1.frontend.LLBBridge"
BUILD = "buildkit-controlapi-buildid"
ABSENT = (
    *("ResolveImageConfig", "ResolveSourceMeta", "ReadFile", "ReadDir", "StatFile", "Inputs"),
    *("NewContainer", "ReleaseContainer", "ExecProcess", "Warn"),
)
GATEWAY = (
    *("solve.base", "return", "returnmap", "proto.refarray", "importcaches", "frontend.caps", "frontend.inputs"),
    *("gateway.solve.metadata", "gateway.evaluate", "reference.output"),
)
SOLVER = (  # that graphs are understood is said so that they are refused in our words
    *("source.image", "source.image.resolvemode", "source.local", "source.local.sessionid", "source.git"),
    *("source.git.fullurl", "source.http", "constraints", "platform", "meta.description"),
    *("exporter.image.attestations", "exporter.multiple", "exporter.sourcedateepoch"),
)


class Gateway:
    """What one connection of buildx can ask of frontends."""

    def __init__(self, control: Control, jobs: Solves) -> None:
        """`jobs` are the builds of all connections."""
        self._control = control
        self._promises = control.promises
        self._jobs = jobs

    def __mapping__(self) -> dict[str, Handler]:
        """Tell grpclib what can be asked."""
        return {
            f"{SERVICE}/Ping": Handler(self._ping, Cardinality.UNARY_UNARY, Empty, Pong),
            f"{SERVICE}/Solve": Handler(self._solve, Cardinality.UNARY_UNARY, FrontendSolve, FrontendSolved),
            f"{SERVICE}/Return": Handler(self._return, Cardinality.UNARY_UNARY, Return, Empty),
            f"{SERVICE}/Evaluate": Handler(self._evaluate, Cardinality.UNARY_UNARY, Ref, Empty),
            **absent(SERVICE, ABSENT),
        }

    async def _job(self, stream: Stream[Any, Any]) -> Job:
        return await self._jobs.find(
            str(stream.metadata[BUILD]) if stream.metadata and BUILD in stream.metadata else ""
        )

    async def _ping(self, stream: Stream[Empty, Pong]) -> None:
        await answered(stream)
        gateway, solver = ([Ability(name) for name in names] for names in (GATEWAY, SOLVER))
        await stream.send_message(Pong(gateway, solver, [self._control.worker()]))

    async def _solve(self, stream: Stream[FrontendSolve, FrontendSolved]) -> None:
        request = await answered(stream)
        with told():
            job = await self._job(stream)
            if request.frontend not in frontend.FRONTENDS:
                raise NoGraphs
            attributes = mapping(request.attributes)
            for each in request.inputs:
                attributes |= await self._input(attributes, each)
            wish = frontend.wish(attributes)
            if wish.call == "build":
                key = secrets.token_hex(12)
                self._promises[key] = (job, wish)
                result = Result(Ref(key, graph.spelled(key)))
            else:
                told_of = called(wish.call, await self._control.build(job, wish))
                result = Result(metadata=[Blob(key, value) for key, value in told_of.items()])
            await stream.send_message(FrontendSolved(result))

    async def _input(self, attributes: Mapping[str, str], each: Input) -> dict[str, str]:
        """Make what another build of this client promises, while that one still waits; give it as the images it is."""
        promise = self._promises.get(graph.read(each.value))
        names = [name for name, value in attributes.items() if value == f"input:{each.key}"]
        if promise is None or not all(name.startswith("context:") for name in names):
            raise NoGraphs
        job, wish = promise
        made = await self._control.build(job, msgspec.structs.replace(wish, outputs=[Output(kind="image")]))
        return dict.fromkeys(names, f"{IMAGE}{made['id']}")

    async def _evaluate(self, stream: Stream[Ref, Empty]) -> None:
        """Say that it will be done: it is, when the client has returned."""
        await answered(stream)
        await stream.send_message(Empty())

    async def _return(self, stream: Stream[Return, Empty]) -> None:
        returned = await answered(stream)
        with told():
            job = await self._job(stream)
            if job.returned.done():
                raise InvalidArgument("this build has returned already")
            job.returned.set_result(returned)
            await stream.send_message(Empty())
