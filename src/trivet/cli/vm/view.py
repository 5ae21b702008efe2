"""`vm view`: a machine's screen, keyboard and mouse in the browser, by a small server on the loopback.

The address printed has a token that opens the page once; from then on the browser has a cookie of this server's.
Other users of this host, and pages of other origins, don't get in. What the browser says goes to the engine, by
whose websocket the screen is shown.
"""

from __future__ import annotations

import asyncio
import secrets
import webbrowser
from argparse import Namespace
from pathlib import Path

import msgspec
from aiohttp import ClientSession, ClientWebSocketResponse, UnixConnector, WSMsgType, web

from trivet.base.error import Conflict, TrivetError
from trivet.cli import value
from trivet.cli.command import Command, flag, option
from trivet.cli.context import Context
from trivet.cli.vm.life import REF
from trivet.client.machine import Machines, screen_path
from trivet.client.schema_machine import KeysRequest

PAGES = {"/": ("view.html", "text/html"), "/view.js": ("view.js", "text/javascript")}
LONGEST = 64 << 10
POLICY = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
HEADERS = {"Cache-Control": "no-store", "Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
COOKIE = "trivet-view"
FRAME = 64 << 20
FAREWELL = 2.0
Socket = web.WebSocketResponse | ClientWebSocketResponse


def view(context: Context, args: Namespace) -> int:
    """Serve the page until interrupted."""
    found = context.client.machines.get(args.machine)
    if found.status not in ("running", "paused"):
        hint = f"trivet vm start {args.machine}"
        raise Conflict(f"cannot view machine {args.machine}: it is {found.status}", hint=hint)
    viewer = Viewer(context.client.machines, args.machine)
    asyncio.run(viewer.serve(args.port, opened=args.open))
    return 0


class Viewer:
    """The server for one machine."""

    def __init__(self, machines: Machines, ref: str) -> None:
        self._machines = machines
        self._ref = ref
        self._token = secrets.token_urlsafe(24)
        self._cookie = secrets.token_urlsafe(24)
        self._origin = ""

    async def serve(self, port: int, *, opened: bool) -> None:
        """Say where the page is, and serve it for ever."""
        made = web.Application(client_max_size=LONGEST)
        made.router.add_get("/open/{token}", self._open)
        made.router.add_get("/screen", self._screen)
        made.router.add_post("/keys", self._keys)
        for path in PAGES:
            made.router.add_get(path, self._page)
        runner = web.AppRunner(made, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self._origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        address = f"{self._origin}/open/{self._token}"
        print(address, flush=True)
        if opened:
            await asyncio.to_thread(webbrowser.open, address)
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _open(self, request: web.Request) -> web.StreamResponse:
        """Let the first who has the token in."""
        if not secrets.compare_digest(request.match_info["token"].encode(), self._token.encode()):
            raise web.HTTPNotFound
        self._token = secrets.token_urlsafe(24)
        answer = web.HTTPSeeOther("/")
        answer.set_cookie(COOKIE, self._cookie, httponly=True, samesite="Strict")
        raise answer

    async def _page(self, request: web.Request) -> web.StreamResponse:
        self._check(request)
        name, kind = PAGES[request.path]
        content = await asyncio.to_thread(Path(__file__).with_name(name).read_bytes)
        return web.Response(body=content, content_type=kind, charset="utf-8", headers=HEADERS)

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        """Press keys, or type a text."""
        self._check(request, own=True)
        try:
            wish = msgspec.json.decode(await request.read(), type=KeysRequest)
            await asyncio.to_thread(self._machines.press, self._ref, *wish.keys, text=wish.text)
        except (TrivetError, msgspec.DecodeError) as error:
            raise web.HTTPBadRequest from error
        return web.Response()

    async def _screen(self, request: web.Request) -> web.StreamResponse:
        """Carry what browser and engine say to each other."""
        self._check(request, own=True)
        browser = web.WebSocketResponse(timeout=FAREWELL, max_msg_size=LONGEST)
        await browser.prepare(request)
        connector = UnixConnector(path=self._machines.socket_path)
        async with (
            ClientSession(connector=connector) as session,
            session.ws_connect(f"http://trivet{screen_path(self._ref)}", max_msg_size=FRAME) as engine,
        ):
            await asyncio.wait(
                [asyncio.create_task(_carry(browser, engine)), asyncio.create_task(_carry(engine, browser))],
                return_when=asyncio.FIRST_COMPLETED,
            )
            await engine.close()
            await browser.close()
        return browser

    def _check(self, request: web.Request, *, own: bool = False) -> None:
        """Refuse who wasn't let in, and what another page's script asks."""
        cookie = request.cookies.get(COOKIE, "")
        elsewhere = own and request.headers.get("Origin") != self._origin
        if elsewhere or not secrets.compare_digest(cookie.encode(), self._cookie.encode()):
            raise web.HTTPForbidden


async def _carry(source: Socket, target: Socket) -> None:
    async for message in source:
        if message.type is WSMsgType.BINARY:
            await target.send_bytes(message.data)
        else:
            break


COMMANDS = {
    "view": Command(
        view,
        (
            option("--port", metavar="PORT", type=value.natural, default=0, help="its port (default: a free one)"),
            flag("--open", help="open it in the browser"),
            REF,
        ),
        about="Prints an address on the loopback, good for one browser, and serves it until interrupted.",
        examples=(("trivet vm view web", ""),),
    )
}
