"""A machine's screen, keyboard and mouse: by the engine's websocket, and in the browser's place at `vm view`."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, CookieJar, UnixConnector, WSServerHandshakeError
from tests.conftest import BIN, Daemon
from tests.vm.box import NEEDS, asked, said
from tests.vm.rfb import Rfb

pytestmark = [pytest.mark.vm, pytest.mark.needs(*NEEDS)]
LISTEN = "for e in /sys/class/input/event*; do cat /dev/input/${e##*/} >>/keys & done"
PLACE_OF_A = 30


@contextmanager
def viewed(engine: Daemon, name: str) -> Iterator[str]:
    """Run `vm view`; the address it prints."""
    command = [str(BIN / "trivet"), "vm", "view", name]
    view = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TRIVET_HOST": engine.address}
    )
    try:
        assert view.stdout is not None
        yield view.stdout.readline().strip()
    finally:
        view.terminate()
        view.wait()


async def look(socket: ClientWebSocketResponse) -> None:
    """See a picture with something on it, and press a key."""
    viewer = Rfb(socket)
    assert "seen" in await viewer.greet()
    assert await viewer.draw() > 100
    await viewer.press(PLACE_OF_A)
    await viewer.draw()


def test_the_engine_shows_a_screen_by_websocket(engine: Daemon, tiny: list[str]) -> None:
    """What the firmware wrote is seen, by two viewers at once, and keys reach the guest."""
    engine.ok("vm", "create", "seen", *tiny, "--start")
    said(engine, "seen", "tiny# ")
    asked(engine, "seen", f"{LISTEN}; echo listens $((1+1))", "listens 2")

    async def both() -> None:
        async with ClientSession(connector=UnixConnector(path=str(engine.socket))) as session:
            address = "http://trivet/v1/machines/seen/screen"
            async with session.ws_connect(address) as one, session.ws_connect(address) as other:
                await asyncio.gather(look(one), look(other))
            with pytest.raises(WSServerHandshakeError):
                await session.ws_connect("http://trivet/v1/machines/none/screen")

    asyncio.run(both())
    asked(engine, "seen", "echo pressed $(($(wc -c </keys) > 0))", "pressed 1")


def test_the_page_is_for_one_browser(engine: Daemon) -> None:
    """The address opens once; without its cookie, or from another page, nothing is shown and no key pressed."""

    async def browse(address: str) -> None:
        origin = address.partition("/open/")[0]
        keys = {"keys": ["ctrl-l"]}
        async with ClientSession() as stranger:
            for path in ("/", "/view.js", "/screen"):
                assert (await stranger.get(origin + path)).status == 403, path
            assert (await stranger.get(f"{origin}/open/nonsense")).status == 404
            assert (await stranger.post(f"{origin}/keys", json=keys, headers={"Origin": origin})).status == 403
        async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as browser:
            page = await browser.get(address)
            assert "<canvas" in await page.text()
            assert "default-src 'none'" in page.headers["Content-Security-Policy"]
            assert "RFB 003.008" in await (await browser.get(f"{origin}/view.js")).text()
            assert (await browser.get(address)).status == 404
            assert (await browser.post(f"{origin}/keys", json=keys, headers={"Origin": origin})).status == 200
            assert (await browser.post(f"{origin}/keys", json=keys, headers={"Origin": "http://evil"})).status == 403
            wrong = await browser.post(f"{origin}/keys", json={"keys": ["x-nonsense"]}, headers={"Origin": origin})
            assert wrong.status == 400
            with pytest.raises(WSServerHandshakeError):
                await browser.ws_connect(f"{origin}/screen", origin="http://evil")
            async with browser.ws_connect(f"{origin}/screen", origin=origin) as socket:
                await look(socket)

    with viewed(engine, "seen") as address:
        asyncio.run(browse(address))
    engine.ok("vm", "stop", "-f", "seen")
    assert "trivet vm start seen" in engine.trivet("vm", "view", "seen").stderr.decode()
    engine.ok("vm", "rm", "seen")
