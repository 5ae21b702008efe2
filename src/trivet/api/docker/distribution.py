"""What a registry has under a name, without pulling it."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from trivet.api.docker.credential import of_request
from trivet.api.docker.error import NotOffered
from trivet.api.docker.route import Route, answer, name
from trivet.base.error import NotFound
from trivet.engine.engine import Engine
from trivet.oci import reference as references
from trivet.oci.platform import Platform
from trivet.registry.offer import offering


async def inspect(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Show the descriptor and the platforms of an image in its registry."""
    wanted = references.parse(name(request)).tagged()
    try:
        with offering(wanted.domain, of_request(request)):
            found = await engine.look_up_image(wanted)
    except NotFound as error:
        raise NotOffered from error
    return answer(
        {
            "Descriptor": {"mediaType": found.media_type, "digest": found.digest, "size": found.size},
            "Platforms": [_platform(each) for each in found.platforms],
        }
    )


def _platform(found: Platform) -> dict[str, Any]:
    shown: dict[str, Any] = {"architecture": found.architecture, "os": found.os}
    return {**shown, "variant": found.variant} if found.variant else shown


ROUTES = (Route("GET", "/distribution/{name:.+}/json", inspect),)
