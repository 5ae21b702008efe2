"""The registry as an aiohttp application: which handler a method and a resource have, and what refusals look like."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from trivet.base.error import Exhausted, Unavailable
from trivet.registry.server import blob, listing, manifest, route
from trivet.registry.server.error import Code, Refusal
from trivet.registry.server.gate import Caller, Gate
from trivet.registry.server.registry import Registry
from trivet.registry.server.route import Resource, Target

log = logging.getLogger(__name__)

Handler = Callable[[Registry, web.Request, Target, Caller], Awaitable[web.StreamResponse]]

HANDLERS: dict[Resource, dict[str, Handler]] = {
    Resource.API: {"GET": listing.api, "HEAD": listing.api},
    Resource.CATALOG: {"GET": listing.catalog},
    Resource.BLOB: {"GET": blob.read, "HEAD": blob.read, "DELETE": blob.delete},
    Resource.UPLOADS: {"POST": blob.begin},
    Resource.UPLOAD: {"GET": blob.status, "PATCH": blob.chunk, "PUT": blob.commit, "DELETE": blob.cancel},
    Resource.MANIFEST: {
        "GET": manifest.read,
        "HEAD": manifest.read,
        "PUT": manifest.store,
        "DELETE": manifest.delete,
    },
    Resource.TAGS: {"GET": listing.tags},
    Resource.REFERRERS: {"GET": listing.referrers},
}
METHODS = frozenset("GET HEAD POST PUT PATCH DELETE".split())
METRICS = "text/plain; version=0.0.4; charset=utf-8"
EVERY_ANSWER = {"Docker-Distribution-API-Version": "registry/2.0", "Server": "trivet"}


def application(registry: Registry, gate: Gate) -> web.Application:
    """Make the application; every path has the same entry, `route` tells them apart."""

    metrics = registry.metrics

    async def serve(request: web.Request) -> web.StreamResponse:
        began = time.monotonic()
        metrics.add("requests_running")
        try:
            answer = await _handle(registry, gate, request)
        except Refusal as refusal:
            answer = _refused(refusal)
        except (ConnectionError, web.RequestPayloadError) as error:
            answer = _refused(Refusal(Code.UNKNOWN, f"the request broke off: {error}", status=400))
        except TimeoutError:
            answer = _refused(Refusal(Code.UNKNOWN, "the client was silent for too long", status=408))
        except Exhausted as error:
            log.error("%s", error.message)
            answer = _refused(Refusal(Code.UNKNOWN, "the registry's disk is full", status=507))
        except Unavailable as error:
            log.error("%s", error.message)
            answer = _refused(Refusal(Code.UNKNOWN, "the registry's store does not answer", status=503))
        except Exception:
            log.exception("%s %s failed", request.method, request.rel_url)
            answer = _refused(Refusal(Code.UNKNOWN, "internal error; the registry's log has the details"))
        finally:
            metrics.add("requests_running", -1)
            metrics.add("request_seconds_total", time.monotonic() - began)
        method = request.method if request.method in METHODS else "other"
        metrics.add("requests_total", method=method, status=str(answer.status))
        answer.headers.update(EVERY_ANSWER)
        return answer

    async def count(request: web.Request, answer: web.StreamResponse) -> None:
        if request.method != "HEAD":
            metrics.add("sent_bytes_total", answer.content_length or 0)

    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", serve)
    app.on_response_prepare.append(count)
    return app


def metrics_application(registry: Registry) -> web.Application:
    """Make the application behind `--metrics`: what was counted, for everybody who reaches it."""

    async def serve(request: web.Request) -> web.Response:
        registry.metrics.set("uploads_open", len(registry.uploads))
        return web.Response(text=registry.metrics.text(), headers={"Content-Type": METRICS})

    app = web.Application()
    app.router.add_get("/metrics", serve)
    return app


async def _handle(registry: Registry, gate: Gate, request: web.Request) -> web.StreamResponse:
    if request.path == "/token":
        return await gate.token(request)
    target = route.parse(request.rel_url.raw_path)
    caller = await gate.admit(request, target)
    methods = HANDLERS[target.resource]
    handler = methods.get(request.method)
    if handler is None:
        allowed = {"Allow": ", ".join(methods)}
        raise Refusal(Code.UNSUPPORTED, f"{request.method} is not for this path", headers=allowed)
    return await handler(registry, request, target, caller)


def _refused(refusal: Refusal) -> web.Response:
    headers = {"Content-Type": "application/json", **refusal.headers}
    answer = web.Response(status=refusal.status, body=refusal.body(), headers=headers)
    if refusal.status in (408, 413):
        answer.force_close()
    return answer
