"""The messages of a session and of a build's trace, as BuildKit and fsutil number their fields.

Fields that aren't named here are passed over when they come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated

from pure_protobuf.annotations import Field
from pure_protobuf.message import BaseMessage


@dataclass
class Bytes(BaseMessage):
    """A piece of a stream: of an agent's conversation, of an archive."""

    data: Annotated[bytes, Field(1)] = b""


@dataclass
class Empty(BaseMessage):
    """Nothing to say."""


@dataclass
class Host(BaseMessage):
    """A registry whose credentials are wanted."""

    host: Annotated[str, Field(1)] = ""


@dataclass
class Account(BaseMessage):
    """A registry's credentials; without a user name, `secret` is an identity token."""

    user: Annotated[str, Field(1)] = ""
    secret: Annotated[str, Field(2)] = ""


@dataclass
class Name(BaseMessage):
    """The id of a secret, or of an agent."""

    id: Annotated[str, Field(1)] = ""


class Kind(IntEnum):
    """What a packet of fsutil's is."""

    STAT = 0
    REQUEST = 1
    DATA = 2
    END = 3
    ERROR = 4


@dataclass
class Stat(BaseMessage):
    """A file: `mode` has the bits of Go's os.FileMode, `time` is in nanoseconds."""

    path: Annotated[str, Field(1)] = ""
    mode: Annotated[int, Field(2)] = 0
    uid: Annotated[int, Field(3)] = 0
    gid: Annotated[int, Field(4)] = 0
    size: Annotated[int, Field(5)] = 0
    time: Annotated[int, Field(6)] = 0
    link: Annotated[str, Field(7)] = ""
    major: Annotated[int, Field(8)] = 0
    minor: Annotated[int, Field(9)] = 0


@dataclass
class Packet(BaseMessage):
    """fsutil's: first all STATs, which number the files from 0; then what is asked for, in any order."""

    kind: Annotated[int, Field(1)] = 0
    stat: Annotated[Stat | None, Field(2)] = None
    id: Annotated[int, Field(3)] = 0
    data: Annotated[bytes, Field(4)] = b""


@dataclass
class Time(BaseMessage):
    """A moment, in Unix time."""

    seconds: Annotated[int, Field(1)] = 0
    nanos: Annotated[int, Field(2)] = 0


@dataclass
class Vertex(BaseMessage):
    """A part of a build, named by a digest."""

    digest: Annotated[str, Field(1)] = ""
    name: Annotated[str, Field(3)] = ""
    cached: Annotated[bool, Field(4)] = False
    started: Annotated[Time | None, Field(5)] = None
    completed: Annotated[Time | None, Field(6)] = None
    error: Annotated[str, Field(7)] = ""


@dataclass
class Status(BaseMessage):
    """How far something within a vertex is."""

    id: Annotated[str, Field(1)] = ""
    vertex: Annotated[str, Field(2)] = ""
    name: Annotated[str, Field(3)] = ""
    current: Annotated[int, Field(4)] = 0
    total: Annotated[int, Field(5)] = 0
    timestamp: Annotated[Time | None, Field(6)] = None
    started: Annotated[Time | None, Field(7)] = None
    completed: Annotated[Time | None, Field(8)] = None


@dataclass
class Log(BaseMessage):
    """What a vertex has written."""

    vertex: Annotated[str, Field(1)] = ""
    timestamp: Annotated[Time | None, Field(2)] = None
    stream: Annotated[int, Field(3)] = 0
    text: Annotated[bytes, Field(4)] = b""


@dataclass
class Warned(BaseMessage):
    """What is allowed, but hardly meant."""

    vertex: Annotated[str, Field(1)] = ""
    level: Annotated[int, Field(2)] = 0
    short: Annotated[bytes, Field(3)] = b""


@dataclass
class Trace(BaseMessage):
    """What is new of a build."""

    vertices: Annotated[list[Vertex], Field(1)] = field(default_factory=list)
    statuses: Annotated[list[Status], Field(2)] = field(default_factory=list)
    logs: Annotated[list[Log], Field(3)] = field(default_factory=list)
    warnings: Annotated[list[Warned], Field(4)] = field(default_factory=list)
