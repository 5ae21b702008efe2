"""Routes of instances."""

from __future__ import annotations

import json

import msgspec
from aiohttp import web

from trivet.api.native.route import Route, answer, body, filters, flag, nothing, number, ref
from trivet.api.stream import Hijacked, hijack, lines, splice
from trivet.base.clock import parse_time
from trivet.client.schema import (
    Created,
    ExecRequest,
    ExitStatus,
    Instance,
    InstanceRequest,
    StatsSample,
    TopRow,
)
from trivet.engine.engine import Engine
from trivet.engine.instance.log import Wanted
from trivet.engine.instance.stream import Attach, Stream
from trivet.launch.frame import pack

FRAMES = "application/vnd.trivet.frames"
CREATED = "Trivet-Created"  # header of an upgrade that created an instance: the `Created` record


async def create(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, InstanceRequest)
    if not flag(request, "start") or flag(request, "dry_run"):
        return answer(await engine.instances.create(wish, dry_run=flag(request, "dry_run")), 201)
    if not request.headers.get("Upgrade"):
        created, _ = await engine.instances.run(wish, None)
        return answer(created, 201)
    created, program = await engine.instances.run(wish, _streams(request))
    assert program is not None
    head = {CREATED: json.dumps(msgspec.to_builtins(created))}  # ASCII, on one line
    return await _stay(engine, hijack(request, head), program, created.id)


async def listing(engine: Engine, request: web.Request) -> web.StreamResponse:
    found = await engine.instances.select(
        every=flag(request, "all"), filters=filters(request), size=flag(request, "size")
    )
    return answer(found)


async def inspect(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.instances.inspect(ref(request), size=flag(request, "size")))


async def remove(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.instances.remove(ref(request), force=flag(request, "force"), volumes=flag(request, "volumes"))
    return nothing()


async def start(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.instances.start(ref(request))
    return nothing()


async def stop(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.instances.stop(ref(request), _grace(request), request.query.get("signal", ""))
    return nothing()


async def restart(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.instances.restart(ref(request), _grace(request))
    return nothing()


async def kill(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.instances.kill(ref(request), request.query.get("signal", "KILL"))
    return nothing()


async def pause(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.instances.pause(ref(request))
    return nothing()


async def resume(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.instances.resume(ref(request))
    return nothing()


async def rename(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.instances.rename(ref(request), request.query.get("name", ""))
    return nothing()


async def wait(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.instances.wait(ref(request), request.query.get("condition", "exited")))


async def attach(engine: Engine, request: web.Request) -> web.StreamResponse:
    key = engine.instances.key(ref(request))
    program = await engine.instances.attach(key, _streams(request), begin=flag(request, "start"))
    return await _stay(engine, hijack(request), program, key)


def _streams(request: web.Request) -> Attach:
    return Attach(stdin=flag(request, "stdin"), stdout=flag(request, "stdout"), stderr=flag(request, "stderr"))


async def _stay(engine: Engine, client: Stream, program: Stream, key: str) -> web.StreamResponse:
    await splice(
        client, program, lambda: engine.instances.settled(key), lambda word: engine.instances.signal(key, word)
    )
    return Hijacked()


async def execute(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, ExecRequest)
    program = await engine.instances.exec(ref(request), wish)
    if wish.detach:
        program.close()
        return answer({"id": ref(request)})
    client = hijack(request)
    await splice(client, program, _now)
    return Hijacked()


async def _now() -> None:
    """An exec's end concerns nobody else."""


async def logs(engine: Engine, request: web.Request) -> web.StreamResponse:
    wanted = Wanted(
        follow=flag(request, "follow"),
        tail=int(number(request, "tail", -1)),
        since=parse_time(request.query.get("since", "")),
        until=parse_time(request.query.get("until", "")),
        timestamps=flag(request, "timestamps"),
        stdout=request.query.get("stdout", "1") == "1",
        stderr=request.query.get("stderr", "1") == "1",
    )
    frames = await engine.instances.logs(ref(request), wanted)
    response = web.StreamResponse(headers={"Content-Type": FRAMES})
    await response.prepare(request)
    async for kind, data in frames:
        await response.write(pack(kind, data))
    await response.write_eof()
    return response


async def stats(engine: Engine, request: web.Request) -> web.StreamResponse:
    return await lines(request, engine.instances.stats(ref(request), stream=flag(request, "stream")))


async def every_stats(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.instances.all_stats())


async def top(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.instances.top(ref(request)))


def _grace(request: web.Request) -> float | None:
    return number(request, "grace", 0) if "grace" in request.query else None


ONE = "/v1/instances/{ref}"
ROUTES = (
    Route(
        "POST",
        "/v1/instances",
        create,
        "Create an instance; with start=1 and an upgrade, stay with it: the head names it in Trivet-Created",
        InstanceRequest,
        Created,
        ("dry_run", "start", "stdin", "stdout", "stderr"),
    ),
    Route("GET", "/v1/instances", listing, "List instances", None, list[Instance], ("all", "filter", "size")),
    Route("GET", ONE, inspect, "Inspect an instance", None, Instance, ("size",)),
    Route("DELETE", ONE, remove, "Remove an instance", query=("force", "volumes")),
    Route("POST", ONE + "/start", start, "Start an instance"),
    Route("POST", ONE + "/stop", stop, "Stop an instance", query=("grace", "signal")),
    Route("POST", ONE + "/restart", restart, "Stop and start an instance", query=("grace",)),
    Route("POST", ONE + "/kill", kill, "Send a signal to an instance", query=("signal",)),
    Route("POST", ONE + "/pause", pause, "Freeze an instance"),
    Route("POST", ONE + "/resume", resume, "Thaw an instance"),
    Route("POST", ONE + "/rename", rename, "Give an instance another name", query=("name",)),
    Route("POST", ONE + "/wait", wait, "Wait for an instance", None, ExitStatus, ("condition",)),
    Route(
        "POST",
        ONE + "/attach",
        attach,
        "Attach to an instance, perhaps starting it",
        query=("start", "stdin", "stdout", "stderr"),
        stream="trivet-stream",
    ),
    Route("POST", ONE + "/exec", execute, "Run a further program in it", ExecRequest, stream="trivet-stream"),
    Route(
        "GET",
        ONE + "/logs",
        logs,
        "Read an instance's log",
        query=("follow", "tail", "since", "until", "timestamps", "stdout", "stderr"),
        stream=FRAMES,
    ),
    Route("GET", ONE + "/stats", stats, "Measure an instance", None, StatsSample, ("stream",), "application/x-ndjson"),
    Route("GET", "/v1/stats", every_stats, "Measure all running instances", None, list[StatsSample]),
    Route("GET", ONE + "/top", top, "List an instance's processes", None, list[TopRow]),
)
