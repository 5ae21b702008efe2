"""Wire shapes of builds."""

from __future__ import annotations

from typing import Literal

import msgspec

from trivet.client.schema_limit import RlimitRequest


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a build's result.

    kind `image` keeps it, `registry` also pushes it; `local`, `tar` (its files), `oci` and `docker` (an archive) go to
    the caller, who knows the `destination`; `cacheonly` is for the cache. `name` is one more name.
    """

    kind: Literal["image", "registry", "local", "tar", "oci", "docker", "cacheonly"]
    destination: str = ""
    name: str = ""


class CacheTo(msgspec.Struct, frozen=True, kw_only=True):
    """`--cache-to`: `place` is a reference, or a directory of the caller's. `whole`: steps of all stages."""

    kind: Literal["registry", "local", "inline"]
    place: str = ""
    whole: bool = False
    mounts: bool = False  # what RUN --mount=type=cache keeps, too


class CacheFrom(msgspec.Struct, frozen=True, kw_only=True):
    """`--cache-from`: a reference, or a directory of the caller's."""

    kind: Literal["registry", "local"]
    place: str


class BuildRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`build`; the context travels as a tar in the body, this as the header Trivet-Build (JSON).

    `session` is the id under which the caller waits for questions (`client/errand.py`): there are the `secrets` and
    `ssh` agents (by id), the `contexts` whose value is `local:` or `oci-layout://`, and where outputs go.
    `timestamp` is SOURCE_DATE_EPOCH; `remote` a context for the engine to fetch; `memory` and `shm_size` are bytes.
    """

    tags: list[str] = []
    dockerfile: str = "Dockerfile"
    target: str = ""
    build_args: dict[str, str] = {}
    labels: dict[str, str] = {}
    network: str = ""
    no_cache: bool = False
    pull: bool = False
    platform: str = ""
    timestamp: int | None = None
    remote: str = ""
    no_cache_filter: list[str] = []
    allow: list[str] = []  # security.insecure, network.host
    add_hosts: list[str] = []  # NAME:ADDRESS
    ulimits: list[RlimitRequest] = []
    shm_size: int = 0
    memory: int = 0
    cpu_shares: int = 0
    cpuset: str = ""
    session: str = ""
    secrets: list[str] = []
    ssh: list[str] = []
    contexts: dict[str, str] = {}
    outputs: list[Output] = []  # none is `image`
    cache_from: list[CacheFrom] = []
    cache_to: list[CacheTo] = []
    call: Literal["build", "check", "outline", "targets"] = "build"  # but for build, tell something instead
    on_error: Literal["fail", "shell"] = "fail"
    sbom: bool = False
    provenance: bool = False
