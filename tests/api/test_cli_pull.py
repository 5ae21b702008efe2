"""What `trivet pull` shows while an image comes slowly."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import ClientSession, web
from tests.conftest import BIN, Daemon
from tests.image.served import trivet_registry

SIZE = 6 << 20


@contextmanager
def slowly(registry: str) -> Iterator[str]:
    """Pass a registry on, its blobs at about a megabyte a second; yield HOST:PORT."""
    loop, address = asyncio.new_event_loop(), list[str]()
    ready = threading.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        headers = {key: value for key, value in request.headers.items() if key.lower() != "host"}
        async with (
            ClientSession(auto_decompress=False) as session,
            session.request(request.method, f"http://{registry}{request.rel_url}", headers=headers) as source,
        ):
            kept = {key: value for key, value in source.headers.items() if key.lower() != "transfer-encoding"}
            response = web.StreamResponse(status=source.status, headers=kept)
            await response.prepare(request)
            async for piece in source.content.iter_chunked(128 << 10):
                await response.write(piece)
                await asyncio.sleep(0.1)
            return response

    async def serve() -> None:
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address.append(f"127.0.0.1:{runner.addresses[0][1]}")
        ready.set()

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def test_a_slow_layer_tells_bytes_speed_and_time_left(daemon: Daemon, busybox: str, tmp_path: Path) -> None:
    """On a terminal each layer's line says how much of how much came, how fast, and how long it still takes."""
    (tmp_path / "noise").write_bytes(os.urandom(SIZE))
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\nCOPY noise /noise\n")
    with trivet_registry(tmp_path / "served") as registry:
        name = f"{registry}/slow:1"
        daemon.ok("build", "-q", "-t", name, str(tmp_path))
        daemon.ok("push", "-q", name)
        daemon.ok("builder", "prune", "-f")
        daemon.ok("rmi", name)
        with slowly(registry) as slow:
            ours, theirs = os.openpty()
            command = [str(BIN / "trivet"), "pull", f"{slow}/slow:1"]
            environment = {**os.environ, "TRIVET_HOST": daemon.address, "TERM": "xterm"}
            pulling = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
            os.close(theirs)
            shown = bytearray()
            while piece := _read(ours):
                shown += piece
            os.close(ours)
            assert pulling.wait(60) == 0
        daemon.ok("rmi", f"{slow}/slow:1")
    lines = re.findall(r"downloading \S+ ([0-9.]+ [kM]B) of 6\.\d+ MB ([0-9.]+ [kM]B)/s ([0-9:]+) left", shown.decode())
    assert len(lines) > 3, shown.decode()[-2000:]
    assert len({done for done, _, _ in lines}) > 3


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other side is closed
        return b""
