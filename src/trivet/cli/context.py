"""What a handler is given besides its arguments: the client, and where to write."""

from __future__ import annotations

import os
import sys
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trivet.base.error import TrivetError
    from trivet.client.client import Client


class Context:
    """One invocation of the command. The client is made when it is first used."""

    def __init__(self, host: str = "", *, debug: bool = False) -> None:
        self.host = host
        self.debug = debug
        self.verb = ""  # of the command that was typed

    @cached_property
    def client(self) -> Client:
        """Reach the engine, starting it if need be."""
        from trivet.client.client import Client  # `--help` and wrong usage shouldn't wait for it

        return Client(self.host, start=os.environ.get("TRIVET_START") != "0", notify=self.note)

    def note(self, text: str) -> None:
        """Tell people something; standard output is for data."""
        print(text, file=sys.stderr, flush=True)

    def complain(self, error: TrivetError) -> None:
        """Tell people what failed, and what they could do."""
        self.note(f"trivet: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""))

    def warn(self, text: str) -> None:
        """Tell people something they should look at."""
        self.note(f"trivet: warning: {text}")
