"""--ssh: the agent a build is shown: the caller's own, or one that holds the key files that were named."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from trivet.base.error import InvalidArgument, Unavailable, Unsupported
from trivet.cli.command import Misuse

PATIENCE = 10.0  # seconds until an agent listens, or has taken a key


def agents(text: str, undo: ExitStack) -> list[tuple[str, Path]]:
    """Read `default`, `ID=SOCKET` or `ID=KEY[,KEY...]`; `undo` ends the agent of key files."""
    key, _, given = text.partition("=")
    given = given or os.environ.get("SSH_AUTH_SOCK", "")
    if not given:
        raise Misuse("--ssh: no SSH agent runs here", hint="start one: eval $(ssh-agent); ssh-add")
    paths = [Path(word) for word in given.split(",")]
    sockets = [_is_socket(key, path) for path in paths]
    if sockets == [True]:
        return [(key, paths[0])]
    if any(sockets):
        raise InvalidArgument(f"--ssh {key}: {given} is neither one agent's socket nor key files")
    return [(key, _start(key, paths, undo))]


def _is_socket(key: str, path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InvalidArgument(f"--ssh {key}: {path}: {(error.strerror or '').lower()}") from error
    if not (stat.S_ISSOCK(mode) or stat.S_ISREG(mode)):
        raise InvalidArgument(f"--ssh {key}: {path} is neither an agent's socket nor a key file")
    return stat.S_ISSOCK(mode)


def _start(key: str, files: list[Path], undo: ExitStack) -> Path:
    """Run an agent for key files without a passphrase."""
    if not (shutil.which("ssh-agent") and shutil.which("ssh-add")):
        raise Unsupported("--ssh with a key file needs ssh-agent", hint="apt-get install openssh-client")
    socket = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="trivet-ssh-")), "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    undo.callback(agent.wait)
    undo.callback(agent.terminate)
    deadline = time.monotonic() + PATIENCE
    while not socket.exists():
        if agent.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(f"--ssh {key}: ssh-agent does not start")
        time.sleep(0.01)
    for file in files:
        _add(key, file, socket)
    return socket


def _add(key: str, file: Path, socket: Path) -> None:
    environment = {**os.environ, "SSH_AUTH_SOCK": str(socket), "SSH_ASKPASS_REQUIRE": "never"}
    try:
        done = subprocess.run(
            ["ssh-add", "-q", "--", file],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            start_new_session=True,  # without a terminal it can't ask for a passphrase
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"--ssh {key}: ssh-add takes too long with {file}") from error
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        problem = words[-1] if words else f"ssh-add ended with {done.returncode}"
        raise InvalidArgument(
            f"--ssh {key}: cannot use the key {file}: {problem}", hint="its mode must be 0600, without a passphrase"
        )
