"""Further programs that are agreed upon first and started later, and of which people ask how they ended."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import msgspec

from trivet.base.error import Conflict, NotFound, TrivetError
from trivet.base.identity import new_id
from trivet.client.schema import ExecRequest
from trivet.engine.instance import exec as execution
from trivet.engine.instance.context import Context
from trivet.engine.instance.status import check
from trivet.engine.instance.stream import Stream
from trivet.engine.instance.watch import parse_exit
from trivet.launch.channel import Frame
from trivet.launch.frame import Type

KEPT = 1000  # sessions remembered; the oldest that don't run are forgotten


class NoSuchSession(NotFound):
    """An id that no session has."""

    def __init__(self, key: str) -> None:
        super().__init__(f"no such session: {key}")


class Session:
    """One further program of an instance: its stream while it runs, its exit code afterwards."""

    def __init__(self, context: Context, instance: str, request: ExecRequest) -> None:
        self.id = new_id()
        self.instance = instance
        self.request = request
        self.pid = 0
        self.code: int | None = None
        self._context = context
        self._stream: Stream | None = None

    @property
    def running(self) -> bool:
        """Whether the program runs."""
        return self._stream is not None and self.code is None

    def check_new(self) -> None:
        """Raise `Conflict` when the program was started already."""
        if self._stream is not None or self.code is not None:
            raise Conflict(f"session {self.id} was started already")

    async def start(self, *, detach: bool = False, rows: int = 0, columns: int = 0) -> None:
        """Run the program; with `detach` nobody will read what it says. Raises what `check_new` and exec raise."""
        self.check_new()
        request = msgspec.structs.replace(self.request, rows=rows, columns=columns, detach=detach)
        try:
            self._stream = await execution.execute(self._context, self.instance, request, self.id)
        except TrivetError as error:
            self.code = error.exit_code or 126
            raise
        self.pid = self._stream.pid
        if detach:
            self.close()

    async def send(self, kind: Type, payload: bytes = b"") -> None:
        """Send one frame to the program."""
        if self._stream is not None:
            await self._stream.send(kind, payload)

    async def receive(self) -> Frame | None:
        """Receive one frame; the program's end is remembered."""
        frame = await self._stream.receive() if self._stream is not None else None
        if frame is None or frame.type is Type.EXIT:
            self._end(parse_exit(frame.payload).code if frame else 137)
        return frame

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the program's terminal how large it is."""
        await self.send(Type.RESIZE, rows.to_bytes(2, "little") + columns.to_bytes(2, "little"))

    def close(self) -> None:
        """Leave the program alone; it goes on, and its end is awaited."""
        if self.running:
            self._context.background(asyncio.create_task(self._drain()))

    async def _drain(self) -> None:
        while self.running:
            await self.receive()

    def _end(self, code: int) -> None:
        if self.code is None:
            self.code = code
            if self._stream is not None:
                self._stream.close()
            if record := self._context.table.get(self.instance):
                self._context.emit("exec-die", record, session=self.id, exit_code=str(code))


class Sessions:
    """The sessions of all instances, by id."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def create(self, ref: str, request: ExecRequest) -> Session:
        """Agree upon a further program of a running instance."""
        record = self._context.table.find(ref)
        check("exec in", record.name, record.word)
        session = Session(self._context, record.id, request)
        self._sessions[session.id] = session
        for key in [key for key, each in self._sessions.items() if not each.running][: len(self._sessions) - KEPT]:
            del self._sessions[key]
        self._context.emit("exec-create", record, session=session.id, command=" ".join(request.command)[:200])
        return session

    def find(self, key: str) -> Session:
        """Find a session. Raises `NoSuchSession`."""
        try:
            return self._sessions[key]
        except KeyError:
            raise NoSuchSession(key) from None

    def of_instance(self, key: str) -> list[str]:
        """List the sessions of an instance that run."""
        return [each.id for each in self._sessions.values() if each.instance == key and each.running]
