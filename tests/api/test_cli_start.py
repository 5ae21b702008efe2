"""The engine that starts by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import BIN

from trivet.client.address import default_socket
from trivet.client.client import Client
from trivet.client.start import EngineNotStarted, answers, start_engine
from trivet.daemon.settings import parse

pytestmark = pytest.mark.needs("root")

START = """
import sys
from pathlib import Path
from trivet.client.start import start_engine
start_engine(Path(sys.argv[1]))
"""


def test_two_commands_start_one_engine(short_path: Path, tmp_path: Path) -> None:
    """Commands that come at once share one engine, which outlives them in a session of its own."""
    socket = short_path / "trivet.sock"
    environ = {**os.environ, "TRIVET_ROOT": str(tmp_path), "TRIVET_RUN_DIR": str(short_path)}
    commands = [subprocess.Popen([sys.executable, "-c", START, socket], env=environ) for _ in range(3)]
    assert [command.wait(60) for command in commands] == [0, 0, 0]
    pid = Client(f"unix://{socket}").system.info().pid
    try:
        assert os.getsid(pid) == pid
        assert (short_path / "trivetd.log").read_text().count(f"listening on unix://{socket}\n") == 1
        start_engine(socket)  # finds it answering
        assert Client(f"unix://{socket}").system.info().pid == pid
    finally:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while answers(socket) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not answers(socket)
    subprocess.run([BIN / "trivetd", "--uninstall"], env=environ, check=True)


def test_an_engine_that_cannot_start(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is told with the last lines of the log and where the rest is."""
    monkeypatch.setenv("TRIVET_ROOT", "/proc/nowhere")
    with pytest.raises(
        EngineNotStarted, match=r"ended with status 1 before it was ready; .*\n.*/proc/nowhere"
    ) as caught:
        start_engine(short_path / "trivet.sock")
    assert caught.value.hint == f"the whole log is {short_path}/trivetd.log"


def test_a_named_engine_is_not_started(short_path: Path) -> None:
    """Only at the default address; and not with TRIVET_START=0 either."""
    assert Client(f"unix://{short_path}/s").transport._start is None
    assert Client(start=False).transport._start is None
    assert Client().transport._start is not None or "TRIVET_HOST" in os.environ
    assert Client().transport.socket_path == default_socket() or "TRIVET_HOST" in os.environ


@pytest.mark.parametrize("option", ["--listen", "--docker-listen"])
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:2375", "http://0.0.0.0", "0.0.0.0:2375"])
def test_an_engine_listens_on_unix_sockets_alone(option: str, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no door for another machine, or for a browser's page, to be opened by mistake."""
    with pytest.raises(SystemExit):
        parse([option, address])
    assert f"cannot listen on {address}: only unix:///PATH is supported" in capsys.readouterr().err
