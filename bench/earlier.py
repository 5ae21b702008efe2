"""An engine that outlived whoever started it: a bench or a demo that was killed, or a demo told to keep it."""

from __future__ import annotations

import os
import select
import signal

from trivet.base.error import TrivetError
from trivet.client.client import Client

PATIENCE = 30.0  # seconds until it has ended


def root(client: Client) -> str:
    """Return the directory of the engine that answers; nothing when there is none."""
    try:
        return client.system.info().root
    except TrivetError:
        return ""


def end(client: Client) -> None:
    """End the engine that answers, if there is one; what it runs goes on."""
    if not root(client):
        return
    process = os.pidfd_open(client.system.info().pid)
    signal.pidfd_send_signal(process, signal.SIGTERM)
    select.select([process], [], [], PATIENCE)
    os.close(process)
