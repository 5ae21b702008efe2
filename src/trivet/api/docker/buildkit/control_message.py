"""The messages of BuildKit's control API and of its gateway, as buildx numbers their fields.

A map is a list of pairs, as it is on the wire. Fields that aren't named here are passed over when they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pure_protobuf.annotations import Field
from pure_protobuf.message import BaseMessage

from trivet.api.docker.buildkit.message import Empty, Time


@dataclass
class Pair(BaseMessage):
    """An entry of a map of texts."""

    key: Annotated[str, Field(1)] = ""
    value: Annotated[str, Field(2)] = ""


@dataclass
class Blob(BaseMessage):
    """An entry of a map of bytes."""

    key: Annotated[str, Field(1)] = ""
    value: Annotated[bytes, Field(2)] = b""


def pairs(values: Mapping[str, str]) -> list[Pair]:
    """Spell a map."""
    return [Pair(key, value) for key, value in values.items()]


def mapping(values: Iterable[Pair]) -> dict[str, str]:
    """Read a map."""
    return {each.key: each.value for each in values}


@dataclass
class Kind(BaseMessage):
    """A kind of exporter or cache, with its settings."""

    type: Annotated[str, Field(1)] = ""
    attributes: Annotated[list[Pair], Field(2)] = field(default_factory=list)


@dataclass
class Caches(BaseMessage):
    """Where the cache goes to, and where it comes from."""

    exports: Annotated[list[Kind], Field(4)] = field(default_factory=list)
    imports: Annotated[list[Kind], Field(5)] = field(default_factory=list)


@dataclass
class Source(BaseMessage):
    """Where files come from."""

    identifier: Annotated[str, Field(1)] = ""


@dataclass
class Edge(BaseMessage):
    """An operation that another one goes on from."""

    digest: Annotated[str, Field(1)] = ""


@dataclass
class Operation(BaseMessage):
    """A part of a graph."""

    inputs: Annotated[list[Edge], Field(1)] = field(default_factory=list)
    source: Annotated[Source | None, Field(3)] = None


@dataclass
class Note(BaseMessage):
    """What is told of an operation: nothing, but clients want to see it."""

    key: Annotated[str, Field(1)] = ""
    value: Annotated[Empty | None, Field(2)] = field(default_factory=Empty)


@dataclass
class Definition(BaseMessage):
    """A graph of operations, each as its bytes; the last says which one it is all for."""

    operations: Annotated[list[bytes], Field(1)] = field(default_factory=list)
    notes: Annotated[list[Note], Field(2)] = field(default_factory=list)


@dataclass
class Input(BaseMessage):
    """A graph that a frontend begins with."""

    key: Annotated[str, Field(1)] = ""
    value: Annotated[Definition | None, Field(2)] = None


@dataclass
class Solve(BaseMessage):
    """Control.Solve: without a frontend, the client says by the gateway what is to be solved.

    `exporter` and its attributes are how clients before BuildKit 0.13 name the only one.
    """

    ref: Annotated[str, Field(1)] = ""
    definition: Annotated[Definition | None, Field(2)] = None
    exporter: Annotated[str, Field(3)] = ""
    exporter_attributes: Annotated[list[Pair], Field(4)] = field(default_factory=list)
    session: Annotated[str, Field(5)] = ""
    frontend: Annotated[str, Field(6)] = ""
    attributes: Annotated[list[Pair], Field(7)] = field(default_factory=list)
    cache: Annotated[Caches | None, Field(8)] = None
    entitlements: Annotated[list[str], Field(9)] = field(default_factory=list)
    inputs: Annotated[list[Input], Field(10)] = field(default_factory=list)
    exporters: Annotated[list[Kind], Field(13)] = field(default_factory=list)


@dataclass
class Solved(BaseMessage):
    """What became of it."""

    response: Annotated[list[Pair], Field(1)] = field(default_factory=list)


@dataclass
class Ref(BaseMessage):
    """A build by its id, or a result of one, also as a graph that other builds can begin with."""

    id: Annotated[str, Field(1)] = ""
    definition: Annotated[Definition | None, Field(2)] = None


@dataclass
class Platform(BaseMessage):
    """What a worker can build for."""

    architecture: Annotated[str, Field(1)] = ""
    os: Annotated[str, Field(2)] = ""
    variant: Annotated[str, Field(3)] = ""


@dataclass
class Version(BaseMessage):
    """Who answers."""

    package: Annotated[str, Field(1)] = ""
    version: Annotated[str, Field(2)] = ""
    revision: Annotated[str, Field(3)] = ""


@dataclass
class Worker(BaseMessage):
    """A builder."""

    id: Annotated[str, Field(1)] = ""
    labels: Annotated[list[Pair], Field(2)] = field(default_factory=list)
    platforms: Annotated[list[Platform], Field(3)] = field(default_factory=list)
    version: Annotated[Version | None, Field(5)] = None


@dataclass
class Workers(BaseMessage):
    """All builders."""

    record: Annotated[list[Worker], Field(1)] = field(default_factory=list)


@dataclass
class Info(BaseMessage):
    """What BuildKit this is."""

    version: Annotated[Version | None, Field(1)] = None


@dataclass
class Usage(BaseMessage):
    """A part of the cache."""

    id: Annotated[str, Field(1)] = ""
    mutable: Annotated[bool, Field(2)] = False
    in_use: Annotated[bool, Field(3)] = False
    size: Annotated[int, Field(4)] = 0
    created: Annotated[Time | None, Field(6)] = None
    used: Annotated[Time | None, Field(7)] = None
    count: Annotated[int, Field(8)] = 0
    description: Annotated[str, Field(9)] = ""
    kind: Annotated[str, Field(10)] = ""


@dataclass
class Usages(BaseMessage):
    """The cache."""

    record: Annotated[list[Usage], Field(1)] = field(default_factory=list)


@dataclass
class Ability(BaseMessage):
    """Something that this BuildKit understands."""

    id: Annotated[str, Field(1)] = ""
    enabled: Annotated[bool, Field(2)] = True


@dataclass
class Pong(BaseMessage):
    """What the gateway, and the solver behind it, understand."""

    gateway: Annotated[list[Ability], Field(1)] = field(default_factory=list)
    solver: Annotated[list[Ability], Field(2)] = field(default_factory=list)
    workers: Annotated[list[Worker], Field(3)] = field(default_factory=list)


@dataclass
class FrontendSolve(BaseMessage):
    """LLBBridge.Solve."""

    definition: Annotated[Definition | None, Field(1)] = None
    frontend: Annotated[str, Field(2)] = ""
    attributes: Annotated[list[Pair], Field(3)] = field(default_factory=list)
    caches: Annotated[list[Kind], Field(12)] = field(default_factory=list)
    inputs: Annotated[list[Input], Field(13)] = field(default_factory=list)
    evaluate: Annotated[bool, Field(14)] = False


@dataclass
class Result(BaseMessage):
    """What a frontend has made: something to export, and what is told of it."""

    ref: Annotated[Ref | None, Field(3)] = None
    metadata: Annotated[list[Blob], Field(10)] = field(default_factory=list)


@dataclass
class FrontendSolved(BaseMessage):
    """What LLBBridge.Solve answers."""

    result: Annotated[Result | None, Field(3)] = None


@dataclass
class Problem(BaseMessage):
    """google.rpc.Status."""

    code: Annotated[int, Field(1)] = 0
    message: Annotated[str, Field(2)] = ""


@dataclass
class Return(BaseMessage):
    """What the client wants exported, or why there is nothing."""

    result: Annotated[Result | None, Field(1)] = None
    error: Annotated[Problem | None, Field(2)] = None
