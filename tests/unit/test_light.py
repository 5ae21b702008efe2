"""What an engine doesn't load until it needs it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("aiohttp.client", "cryptography", "bcrypt", "minio", "yaml", "multiprocessing")
BEGIN = "from trivet.daemon import main; main.defer_client(); import sys, trivet.daemon.serve; "
ASK = f"{BEGIN}print(*sorted(set(sys.argv[1:]) & set(sys.modules)))"


def _said(code: str, *words: str) -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    ).stdout.split()


def test_an_engine_begins_light() -> None:
    """Libraries of megabytes that few engines ever use aren't loaded by starting one."""
    assert _said(ASK, *HEAVY) == []


def test_what_was_deferred_is_there_when_it_is_asked_for() -> None:
    """The first name of aiohttp's client that is asked for brings all of them, the server's stay what they were."""
    code = (
        "import aiohttp; from aiohttp import web; before = web.Response; "
        "print(hasattr(aiohttp, 'nothing'), aiohttp.ClientSession.__name__, aiohttp.web.Response is before, "
        "issubclass(aiohttp.ClientError, Exception), bool(aiohttp.__version__))"
    )
    assert _said(BEGIN + code) == ["False", "ClientSession", "True", "True", "True"]
