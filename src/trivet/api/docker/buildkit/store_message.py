"""The messages of containerd's content API, as it numbers their fields."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from pure_protobuf.annotations import Field
from pure_protobuf.message import BaseMessage


class Action(IntEnum):
    """What a message of a writer wants."""

    STAT = 0
    WRITE = 1
    COMMIT = 2


@dataclass
class Read(BaseMessage):
    """The wish for a blob."""

    digest: Annotated[str, Field(1)] = ""


@dataclass
class Piece(BaseMessage):
    """A part of it."""

    offset: Annotated[int, Field(1)] = 0
    data: Annotated[bytes, Field(2)] = b""


@dataclass
class Write(BaseMessage):
    """A part of a blob that is written under the name `ref`; `expected` is its digest."""

    action: Annotated[int, Field(1)] = 0
    ref: Annotated[str, Field(2)] = ""
    total: Annotated[int, Field(3)] = 0
    expected: Annotated[str, Field(4)] = ""
    offset: Annotated[int, Field(5)] = 0
    data: Annotated[bytes, Field(6)] = b""


@dataclass
class Written(BaseMessage):
    """How far it is."""

    action: Annotated[int, Field(1)] = 0
    offset: Annotated[int, Field(4)] = 0
