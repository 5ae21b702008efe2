"""Build arguments that are meant for the builder itself, as BuildKit names them; no ARG has to take them."""

from __future__ import annotations

import msgspec

from trivet.build.error import BuildError
from trivet.client.schema_build import BuildRequest, CacheTo

CACHE_SPACE = "BUILDKIT_CACHE_MOUNT_NS"
HOST_NAME = "BUILDKIT_SANDBOX_HOSTNAME"
KEEP_GIT = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
INLINE_CACHE = "BUILDKIT_INLINE_CACHE"
CHECK = "BUILDKIT_DOCKERFILE_CHECK"
EPOCH = "SOURCE_DATE_EPOCH"
# These have nothing to say here: there is one frontend, no list of builds, and no index of one platform.
_IDLE = ("BUILDKIT_SYNTAX", "BUILDKIT_BUILD_NAME", "BUILDKIT_GIT_ADVICE", "BUILDKIT_MULTI_PLATFORM")
BUILT_IN = frozenset({CACHE_SPACE, HOST_NAME, KEEP_GIT, INLINE_CACHE, CHECK, EPOCH, *_IDLE})


def is_true(text: str) -> bool:
    """Read an argument that is a switch."""
    return text.lower() in ("1", "t", "true")


def obeying(request: BuildRequest) -> BuildRequest:
    """Do what a request's arguments say about dates and cache. Raises `BuildError`."""
    given, timestamp, cache_to = request.build_args, request.timestamp, request.cache_to
    if timestamp is None and (date := given.get(EPOCH)):
        if not (date.isascii() and date.isdigit() and len(date) < 12):
            raise BuildError(f"{EPOCH}={date[:40]} is no Unix time", hint="write seconds since 1970")
        timestamp = int(date)
    if is_true(given.get(INLINE_CACHE, "")) and not any(each.kind == "inline" for each in cache_to):
        cache_to = [*cache_to, CacheTo(kind="inline")]
    return msgspec.structs.replace(request, timestamp=timestamp, cache_to=cache_to)
