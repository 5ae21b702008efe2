"""`vm view`: a machine's screen, keyboard and mouse in the browser, by a small server on the loopback.

Whoever asks has to know a token that is only in the address printed: other users of this host, and pages of other
origins, don't get in.
"""

from __future__ import annotations

import secrets
import webbrowser
from argparse import Namespace
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

from trivet.base.error import Conflict, TrivetError
from trivet.cli import value
from trivet.cli.command import Command, flag, option
from trivet.cli.context import Context
from trivet.cli.vm.life import REF
from trivet.client.machine import Machines
from trivet.client.schema_machine import KeysRequest, PointRequest

PAGE = Path(__file__).with_name("view.html")
LONGEST = 64 << 10


def view(context: Context, args: Namespace) -> int:
    """Serve the page until interrupted."""
    found = context.client.machines.get(args.machine)
    if found.status not in ("running", "paused"):
        hint = f"trivet vm start {args.machine}"
        raise Conflict(f"cannot view machine {args.machine}: it is {found.status}", hint=hint)
    token = secrets.token_urlsafe(24)
    with server(context.client.machines, args.machine, token, args.port) as serving:
        address = f"http://127.0.0.1:{serving.server_address[1]}/#{token}"
        print(address, flush=True)
        if args.open:
            webbrowser.open(address)
        serving.serve_forever()
    return 0


def server(machines: Machines, ref: str, token: str, port: int = 0) -> ThreadingHTTPServer:
    """Make a server for one machine, on the loopback."""

    class Handler(_Handler):
        """The one of this machine."""

    Handler.machines, Handler.ref, Handler.token = machines, ref, token
    made = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    made.daemon_threads = True
    return made


class _Handler(BaseHTTPRequestHandler):
    machines: Machines
    ref: str
    token: str

    def do_GET(self) -> None:
        """Answer with the page, which is no secret, or with a picture."""
        if self.path == "/":
            self._answer(PAGE.read_bytes(), "text/html; charset=utf-8")
        elif self.path == "/screen.png" and self._knows():
            self._try(lambda: self._answer(self.machines.screenshot(self.ref), "image/png"))
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Press keys, or point."""
        size = int(self.headers.get("Content-Length") or 0)
        if not self._knows() or self.path not in ("/keys", "/pointer") or size > LONGEST:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        raw = self.rfile.read(size)
        self._try(lambda: self._keys(raw) if self.path == "/keys" else self._point(raw))

    def _keys(self, raw: bytes) -> None:
        wish = msgspec.json.decode(raw, type=KeysRequest)
        self.machines.press(self.ref, *wish.keys, text=wish.text)
        self._answer(b"", "text/plain")

    def _point(self, raw: bytes) -> None:
        wish = msgspec.json.decode(raw, type=PointRequest)
        self.machines.point(self.ref, wish.x, wish.y, wish.button, wish.down)
        self._answer(b"", "text/plain")

    def _knows(self) -> bool:
        return secrets.compare_digest(self.headers.get("Token", "").encode(), self.token.encode())

    def _try(self, do: Callable[[], None]) -> None:
        try:
            do()
        except (TrivetError, msgspec.DecodeError):
            self.send_error(HTTPStatus.BAD_REQUEST)

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline'; img-src 'self' blob:")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: standard error is for people."""


COMMANDS = {
    "view": Command(
        view,
        (
            option("--port", metavar="PORT", type=value.natural, default=0, help="its port (default: a free one)"),
            flag("--open", help="open it in the browser"),
            REF,
        ),
        about="Prints an address on the loopback, and serves it until interrupted.",
        examples=(("trivet vm view web", ""),),
    )
}
