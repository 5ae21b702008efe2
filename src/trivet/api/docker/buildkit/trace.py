"""A build's progress in BuildKit's words: vertices that start and end, what they write, how far they are."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any

from trivet.api.docker.buildkit.message import Log, Status, Time, Trace, Vertex, Warned
from trivet.api.docker.progress import Line
from trivet.client.schema import Progress

FETCHING, EXPORTING = "[internal] load what the build begins with", "exporting to image"
WARNING = "warning "
DOCKERFILE = "[internal] load build definition"
ENDED = ("downloaded", "exists", "unpacked")


class Tracer:
    """What one build has told so far."""

    def __init__(self) -> None:
        self._open: dict[str, Vertex] = {}
        self._salt = secrets.token_hex(8)  # several builds may be shown together

    def spell(self, item: Progress) -> Trace:
        """Spell a line of progress."""
        trace = Trace()
        if item.stream:
            vertex = self._vertex(item.id, item.id, trace)
            trace.logs.append(Log(vertex.digest, _now(), 1, item.stream.encode()))
        elif item.id.startswith("["):
            title, mark, outcome = item.status.rpartition(" · ")
            if not mark:
                title, outcome = item.status, ""
            vertex = self._vertex(item.id, f"{item.id} {title}", trace)
            if outcome:
                vertex.cached = outcome == "cached"
                if outcome == "failed":
                    return trace  # `failed` says why
                self._end(item.id, trace)
        elif item.id.startswith(WARNING):
            words, line = item.status.rpartition(" (")[0], item.id.split()[1]
            trace.warnings.append(Warned(self._digest(DOCKERFILE), 1, f"{words} (line {line})".encode()))
        elif item.id and item.total:
            trace.statuses.append(self._status(item, self._vertex(FETCHING, FETCHING, trace)))
        elif item.status:
            self._vertex(FETCHING, FETCHING, trace)
            trace.logs.append(Log(self._open[FETCHING].digest, _now(), 2, f"{item.status}\n".encode()))
        return trace

    def done(self, result: dict[str, Any]) -> list[Trace]:
        """Spell the end, with what became of it."""
        trace = Trace()
        for key in list(self._open):
            self._end(key, trace)
        told = [trace]
        if result.get("id"):
            trace = Trace()
            vertex = self._vertex(EXPORTING, EXPORTING, trace)
            words = [f"writing image {result['id']}", *(f"naming to {name}" for name in result["names"])]
            for word in words:
                now = _now()
                trace.statuses.append(Status(word, vertex.digest, word, 0, 0, now, now, now))
            self._end(EXPORTING, trace)
            told.append(trace)
        return told

    def failed(self, words: str) -> Trace:
        """Spell that it has failed: the part that ran last is what broke."""
        trace = Trace()
        for vertex in list(self._open.values())[-1:]:
            vertex.error = words
        for key in list(self._open):
            self._end(key, trace)
        return trace

    def _vertex(self, key: str, name: str, trace: Trace) -> Vertex:
        found = self._open.get(key)
        if found is None:
            found = self._open[key] = Vertex(digest=self._digest(key), name=name, started=_now())
            trace.vertices.append(found)
        return found

    def _digest(self, key: str) -> str:
        return f"sha256:{hashlib.sha256(f'{self._salt} {key}'.encode()).hexdigest()}"

    def _end(self, key: str, trace: Trace) -> None:
        vertex = self._open.pop(key)
        vertex.completed = _now()
        if vertex not in trace.vertices:
            trace.vertices.append(vertex)

    def _status(self, item: Progress, vertex: Vertex) -> Status:
        now = _now()
        ended = now if item.status in ENDED else None
        return Status(item.id, vertex.digest, item.status, item.current, item.total, now, now, ended)


def line(trace: Trace) -> list[Line]:
    """Spell a trace as a line of a build's answer, if it tells anything; msgspec makes base64 of bytes, as Go does."""
    told = bytes(trace)
    return [{"id": "moby.buildkit.trace", "aux": told}] if told else []


def _now() -> Time:
    now = time.time_ns()
    return Time(now // 10**9, now % 10**9)
