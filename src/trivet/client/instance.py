"""Instances, as the client sees them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence

from trivet.base.error import InvalidArgument, NotFound, TrivetError
from trivet.client.connection import Body, Response
from trivet.client.schema import (
    Change,
    Created,
    ExecRequest,
    ExitStatus,
    Instance,
    InstanceRequest,
    PathStat,
    StatsSample,
    TakeoverRequest,
    TopRow,
    UpdateRequest,
)
from trivet.client.schema_image import CommitRequest, Committed
from trivet.client.stream import Decoder, Output, Stream
from trivet.client.transport import Query, Transport, decode, filters, segment


class Instances:
    """`/v1/instances`. `ref` is a name, an id or a unique prefix of one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, request: InstanceRequest, *, dry_run: bool = False, start: bool = False) -> Created:
        """Make an instance; with `dry_run` only tell what would be done, with `start` start it or leave nothing."""
        return self._transport.fetch(Created, "POST", "/v1/instances", {"dry_run": dry_run, "start": start}, request)

    def run(
        self, request: InstanceRequest, *, stdin: bool = False, stdout: bool = True, stderr: bool = True
    ) -> tuple[Created, Stream]:
        """Make an instance, start it and connect to the program; one that can't be started is gone again."""
        query = {"start": True, "stdin": stdin, "stdout": stdout, "stderr": stderr}
        headers, stream = self._transport.upgraded("/v1/instances", query, request)
        return decode(headers.get("trivet-created", "").encode(), Created), stream

    def list(
        self, *, all: bool = False, wanted: Mapping[str, Sequence[str]] | None = None, size: bool = False
    ) -> list[Instance]:
        """List those that run, or all."""
        query: Query = {"all": all, "filter": filters(wanted), "size": size}
        return self._transport.fetch(list[Instance], "GET", "/v1/instances", query)

    def get(self, ref: str, *, size: bool = False) -> Instance:
        """Read one instance."""
        return self._transport.fetch(Instance, "GET", _path(ref), {"size": size})

    def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove an instance, running ones only with `force`; `volumes` takes its anonymous volumes along."""
        self._transport.call("DELETE", _path(ref), {"force": force, "volumes": volumes})

    def start(self, ref: str) -> None:
        """Start an instance that was created or has exited."""
        self._post(ref, "start")

    def stop(self, ref: str, *, grace: int | None = None, signal: str = "") -> None:
        """Ask the program to end, kill it after `grace` seconds (None: as the instance was created)."""
        self._post(ref, "stop", {"grace": grace, "signal": signal})

    def restart(self, ref: str, *, grace: int | None = None) -> None:
        """Stop and start."""
        self._post(ref, "restart", {"grace": grace})

    def kill(self, ref: str, *, signal: str = "KILL") -> None:
        """Send a signal, by name or number."""
        self._post(ref, "kill", {"signal": signal})

    def pause(self, ref: str) -> None:
        """Freeze every process."""
        self._post(ref, "pause")

    def resume(self, ref: str) -> None:
        """Thaw what `pause` froze."""
        self._post(ref, "resume")

    def rename(self, ref: str, name: str) -> None:
        """Give another name."""
        self._post(ref, "rename", {"name": name})

    def wait(self, ref: str, *, condition: str = "exited") -> ExitStatus:
        """Wait until it has exited or, with condition `removed`, is gone."""
        return self._transport.fetch(ExitStatus, "POST", f"{_path(ref)}/wait", {"condition": condition})

    def attach(
        self,
        ref: str,
        *,
        start: bool = False,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        logs: bool = False,
    ) -> Stream:
        """Connect to the program; `start` starts it then, `logs` replays what it wrote before."""
        query = {"start": start, "stdin": stdin, "stdout": stdout, "stderr": stderr, "logs": logs}
        return self._transport.upgrade(f"{_path(ref)}/attach", query)

    def exec(self, ref: str, request: ExecRequest) -> Stream:
        """Run a further program inside and connect to it."""
        return self._transport.upgrade(f"{_path(ref)}/exec", body=request)

    def exec_detached(self, ref: str, request: ExecRequest) -> str:
        """Run a further program inside and leave it alone; returns the session's id."""
        return self._transport.fetch(dict[str, str], "POST", f"{_path(ref)}/exec", body=request).get("id", "")

    def logs(
        self,
        ref: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: str = "",
        until: str = "",
        timestamps: bool = False,
    ) -> Iterator[Output]:
        """Yield what the program wrote, and with `follow` what it writes; `since` and `until` are RFC 3339."""
        query = {"follow": follow, "tail": tail, "since": since, "until": until, "timestamps": timestamps}
        decoder = Decoder()
        with self._transport.request("GET", f"{_path(ref)}/logs", {**query, "stdout": 1, "stderr": 1}) as response:
            for chunk in response.chunks():
                decoder.feed(chunk)
                yield from (event for event in decoder.events() if isinstance(event, Output))

    def stats(self, ref: str, *, stream: bool = False) -> Iterator[StatsSample]:
        """Measure resource use, once or again and again."""
        return self._transport.stream(StatsSample, "GET", f"{_path(ref)}/stats", {"stream": stream})

    def top(self, ref: str) -> Sequence[TopRow]:
        """List the processes inside."""
        return self._transport.fetch(list[TopRow], "GET", f"{_path(ref)}/top")

    def stat_path(self, ref: str, path: str) -> PathStat:
        """Look at a file inside. Raises `NotFound`."""
        try:
            response = self._transport.request("HEAD", f"{_path(ref)}/archive", {"path": path})
        except NotFound as error:  # the answer to HEAD has no body that could say more
            raise NotFound(f"no such file in instance {ref}: {path}") from error
        except TrivetError:
            self.read_archive(ref, path).close()  # fails for the same reason, and tells it
            raise
        with response:
            text = response.headers.get("trivet-path-stat", "").encode("latin-1")
        return decode(text if text.startswith(b"{") else base64.b64decode(text), PathStat)

    def read_archive(self, ref: str, path: str) -> Response:
        """Read a file or directory as a tar whose entries begin with its name."""
        return self._transport.request("GET", f"{_path(ref)}/archive", {"path": path})

    def write_archive(self, ref: str, path: str, archive: Body) -> None:
        """Unpack a tar into directory `path`."""
        query = {"path": path}
        self._transport.request(
            "PUT", f"{_path(ref)}/archive", query, archive, Content_Type="application/x-tar"
        ).close()

    def commit(self, ref: str, request: CommitRequest) -> str:
        """Make an image of an instance; return its id. Raises `Unsupported` at level vm."""
        path = f"/v1/instances/{segment(ref)}/commit"
        return self._transport.fetch(Committed, "POST", path, body=request).id

    def changes(self, ref: str) -> Sequence[Change]:
        """List what an instance has changed in its root. Raises `Unsupported` at level vm."""
        return self._transport.fetch(tuple[Change, ...], "GET", f"/v1/instances/{segment(ref)}/changes")

    def export(self, ref: str) -> Response:
        """Read an instance's root as a tar. Raises `Unsupported` at level vm."""
        return self._transport.request("GET", f"/v1/instances/{segment(ref)}/export")

    def update(self, ref: str, request: UpdateRequest) -> None:
        """Change limits, restart policy and ports, also while it runs where its level can."""
        self._transport.call("POST", f"/v1/instances/{segment(ref)}/update", body=request)

    def take_over(self, ref: str, request: TakeoverRequest) -> None:
        """Let a running instance publish what another one did, without a gap."""
        self._transport.call("POST", f"/v1/instances/{segment(ref)}/takeover", body=request)

    def _post(self, ref: str, verb: str, query: Query | None = None) -> None:
        self._transport.call("POST", f"{_path(ref)}/{verb}", query)


def _path(ref: str) -> str:
    if not ref:
        raise InvalidArgument("an instance's name or id is empty")
    return f"/v1/instances/{segment(ref)}"
