"""The results of frontends as graphs of operations: one operation, that names the result.

buildx hands them back where a build begins with another one's result (`contexts = {base = "target:other"}` of bake).
"""

from __future__ import annotations

import hashlib

from trivet.api.docker.buildkit.control_message import Definition, Edge, Note, Operation, Source
from trivet.base.error import Unsupported

SCHEME = "trivet-result://"


class NoGraphs(Unsupported):
    """A graph that isn't one of ours."""

    def __init__(self) -> None:
        super().__init__("graphs of operations are not solved here, only Dockerfiles")


def spelled(key: str) -> Definition:
    """Spell a result."""
    source = bytes(Operation(source=Source(SCHEME + key)))
    digest = f"sha256:{hashlib.sha256(source).hexdigest()}"
    return Definition([source, bytes(Operation([Edge(digest)]))], [Note(digest)])


def read(definition: Definition | None) -> str:
    """Read which result it is. Raises `NoGraphs`."""
    for each in definition.operations if definition else ():
        source = Operation.loads(each).source
        if source is not None and source.identifier.startswith(SCHEME):
            return source.identifier.removeprefix(SCHEME)
    raise NoGraphs
