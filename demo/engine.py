"""An engine of the demo's own: its images stay under build/demo, so that a second run finds them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import earlier

from demo.step import LOGS, Failure, Waiting, show
from trivet.base.error import TrivetError
from trivet.client.client import Client

PROGRAM = Path(sys.executable).with_name("trivetd")
ROOT = LOGS / "engine"
LOG = LOGS / "engine.log"
RUN = Path("/run/trivet-demo")  # short: the path of a unix socket has at most 107 bytes
HOST = f"unix://{RUN}/trivet.sock"
PATIENCE = 30.0  # seconds until its first word


@contextmanager
def engine(*, keep: bool = False) -> Iterator[Client]:
    """Run `trivetd` for as long as the body takes. One that an earlier demo kept ends first; what it ran goes on."""
    words = ["--root", str(ROOT), "--run-dir", str(RUN)]
    show(".", str(PROGRAM.with_name("activate").relative_to(Path.cwd())))
    show("trivetd", *words, ending=" &")
    show("export", f"TRIVET_HOST={HOST}")
    os.environ["TRIVET_HOST"] = HOST
    client = Client(HOST)
    _end_earlier(client)
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("ab") as log:
        process = subprocess.Popen([PROGRAM, *words], stdin=subprocess.DEVNULL, stderr=log, start_new_session=True)
    try:
        _wait(client, process)
        yield client
        if keep:
            show("kill", str(process.pid))
            show("trivetd", *words, "--uninstall")
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            process.terminate()
            process.wait()
            _uninstall(words)


def _uninstall(words: list[str]) -> None:
    """Take the engine's bridges, rules and control groups off the host; its images and volumes stay."""
    show("trivetd", *words, "--uninstall")
    subprocess.run([PROGRAM, *words, "--uninstall"], stdin=subprocess.DEVNULL)


def _end_earlier(client: Client) -> None:
    root = earlier.root(client)
    if root and Path(root) != ROOT.absolute():
        raise Failure(f"the demo of another checkout is running: its engine keeps its things in {root}")
    earlier.end(client)


def _wait(client: Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    with Waiting("the engine starts"):
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.system.ping()
                return
            except TrivetError:
                time.sleep(0.02)
    last = LOG.read_text().splitlines()[-1:]
    raise Failure(f"the engine did not start: {''.join(last) or 'it said nothing'}")
