"""What a build asks of whoever called it: secrets, keys, directories; and what it gives back.

The caller keeps one connection waiting (`POST /v1/build/session`). A build that needs something takes
it, writes one line, and the caller opens the next:

    engine ──▶ {"ask": "secret", "name": "token"}          ask is a word of `Ask`
    engine ◀── {"size": 12}             or {"error": "..."}
    then       the secret's bytes       │ secret
               bytes both ways          │ ssh: the agent's protocol
               a tar, to its end        │ context (from the caller), output (to the caller)
               frames both ways         │ shell

So only what a build really uses leaves the caller, and none of it is ever on the engine's disk as it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Protocol

import msgspec

from trivet.base.error import Unavailable
from trivet.build.error import BuildError

PATIENCE = 5.0  # seconds in which a caller has to open a connection
LARGEST = 500 << 10  # bytes of a secret, as BuildKit has it


class Ask(StrEnum):
    """What can be asked for."""

    SECRET = "secret"
    SSH = "ssh"
    CONTEXT = "context"
    OUTPUT = "output"
    SHELL = "shell"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's line."""

    ask: Ask
    name: str


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The caller's line; `rows` and `columns` are those of its terminal, for a shell."""

    size: int = 0
    error: str = ""
    rows: int = 0
    columns: int = 0


class Line:
    """One connection to the caller."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.over = asyncio.Event()

    def close(self) -> None:
        """Hang up."""
        self.writer.close()
        self.over.set()


class NoAnswer(Unavailable):
    """A caller that doesn't answer."""

    def __init__(self, what: Ask, name: str) -> None:
        super().__init__(f"{what} {name} was asked for, but who started the build does not answer")


class Caller(Protocol):
    """Whoever started one build."""

    async def offers(self, what: Ask, name: str, listed: Sequence[str]) -> bool:
        """Tell whether something can be asked for; `listed` is what the request says of that."""

    async def ask(self, what: Ask, name: str) -> tuple[Line, Reply]:
        """Ask for something. Raises `BuildError` with the caller's reason, `NoAnswer`."""

    async def secret(self, name: str) -> bytes:
        """Get a secret."""

    def close(self) -> None:
        """End the build."""


class Callers:
    """Those who started builds, by the id that they made up: most are waiting connections."""

    def __init__(self) -> None:
        self._lines: dict[str, asyncio.Queue[Line]] = {}
        self._present: dict[str, Caller] = {}

    def open(self, key: str) -> Caller:
        """Begin a build of this id; "" is a caller who offers nothing."""
        return self._present.get(key) or WaitingCaller(key, self._queue(key), self)

    @contextmanager
    def present(self, key: str, caller: Caller) -> Iterator[None]:
        """Let builds of this id, which nobody can guess, ask a caller who has a way of their own to be asked."""
        self._present[key] = caller
        try:
            yield
        finally:
            del self._present[key]

    async def wait(self, key: str, line: Line) -> None:
        """Keep a connection until it was used, or the build is over."""
        self._queue(key).put_nowait(line)
        await line.over.wait()

    def forget(self, key: str) -> None:
        """Hang up on a build's caller."""
        queue = self._lines.pop(key, None)
        while queue is not None and not queue.empty():
            queue.get_nowait().close()

    def _queue(self, key: str) -> asyncio.Queue[Line]:
        return self._lines.setdefault(key, asyncio.Queue())


class WaitingCaller:
    """A caller who keeps connections waiting."""

    def __init__(self, key: str, lines: asyncio.Queue[Line], callers: Callers) -> None:
        self._key = key
        self._lines = lines
        self._callers = callers

    async def offers(self, what: Ask, name: str, listed: Sequence[str]) -> bool:
        """Believe the request."""
        return name in listed

    async def ask(self, what: Ask, name: str) -> tuple[Line, Reply]:
        """Ask for something. Raises `BuildError` with the caller's reason, `NoAnswer`."""
        if not self._key:
            raise NoAnswer(what, name)
        try:
            line = await asyncio.wait_for(self._lines.get(), PATIENCE)
        except TimeoutError:
            raise NoAnswer(what, name) from None
        try:
            line.writer.write(msgspec.json.encode(Question(ask=what, name=name)) + b"\n")
            reply = msgspec.json.decode(await line.reader.readline(), type=Reply)
        except (OSError, ValueError, msgspec.DecodeError):
            line.close()
            raise NoAnswer(what, name) from None
        except BaseException:
            line.close()
            raise
        if reply.error:
            line.close()
            raise BuildError(reply.error)
        return line, reply

    async def secret(self, name: str) -> bytes:
        """Get a secret."""
        line, reply = await self.ask(Ask.SECRET, name)
        try:
            if not 0 <= reply.size <= LARGEST:
                raise BuildError(f"secret {name} is larger than {LARGEST >> 10} KiB")
            return await line.reader.readexactly(reply.size)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise NoAnswer(Ask.SECRET, name) from error
        finally:
            line.close()

    def close(self) -> None:
        """End the build."""
        if self._key:
            self._callers.forget(self._key)
