"""Secrets: in the instance, in a file of root's, and nowhere else."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from tests.conftest import Daemon

pytestmark = pytest.mark.needs("root")

CONTENT = b"the walrus was Paul"


def holds(directory: Path) -> list[str]:
    """The files below a directory that hold the secret; namespaces that are kept in files can't be read."""
    found = []
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with suppress(OSError):
                found += [path.name] * (CONTENT in path.read_bytes())
    return sorted(found)


@pytest.mark.vm
def test_every_level(daemon: Daemon, busybox: str) -> None:
    """Instances of every level find a secret as a file with owner and mode, read-only."""
    daemon.ok("secret", "create", "levels", "-", input=CONTENT)
    wish = ("--secret", "levels,target=key,uid=1000,gid=1000,mode=0400", "--secret", "source=levels,target=/etc/key")
    script = "cat /run/secrets/key /etc/key; stat -c ' %u %g %a' /run/secrets/key; echo x 2>&1 >/etc/key"
    for level in ("container", "process", "vm"):
        done = daemon.trivet("run", "--rm", "--isolation", level, *wish, busybox, "sh", "-c", script, timeout=240)
        shown = (done.stdout + done.stderr).decode()
        assert CONTENT.decode() * 2 + " 1000 1000 400" in shown, shown
        assert "Read-only file system" in shown, shown
    daemon.ok("secret", "rm", "levels")


def test_nobody_is_shown(daemon: Daemon, busybox: str) -> None:
    """No answer, log or record holds the content; on disk it is in the store, and with an instance while that runs."""
    made = daemon.ok("secret", "create", "--label", "who=me", "hidden", "-", input=CONTENT)
    place = daemon.root / "secret" / made
    assert (place.stat().st_mode & 0o777, place.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    daemon.ok("run", "-d", "--name", "hider", "--secret", "hidden", busybox, "sleep", "300")
    (shown,) = json.loads(daemon.ok("secret", "inspect", "hidden"))
    assert (shown["name"], shown["labels"], shown["users"]) == ("hidden", {"who": "me"}, ["hider"])
    plan = daemon.ok("create", "--dry-run", "--secret", "hidden", busybox)
    for text in (daemon.ok("inspect", "hider"), daemon.ok("secret", "ls"), plan, daemon.log.read_text()):
        assert CONTENT.decode() not in text
    assert holds(daemon.root) == ["0", made]
    assert holds(daemon.run) == []
    daemon.kill()
    daemon.start()
    assert daemon.ok("exec", "hider", "cat", "/run/secrets/hidden") == CONTENT.decode()
    daemon.ok("stop", "-t", "0", "hider")
    assert holds(daemon.root) == [made]
    daemon.ok("start", "hider")
    assert daemon.ok("exec", "hider", "cat", "/run/secrets/hidden") == CONTENT.decode()
    assert "is in use by instance hider" in daemon.trivet("secret", "rm", "hidden").stderr.decode()
    daemon.ok("rm", "-f", "hider")
    daemon.ok("secret", "rm", "hidden")
    assert holds(daemon.root) == []


def test_what_cannot_be(daemon: Daemon, busybox: str) -> None:
    """A secret without content or too large, of a taken or impossible name, or one that isn't there is refused."""
    daemon.ok("secret", "create", "taken", "-", input=CONTENT)
    create = ("secret", "create")
    for words, data, said in (
        ((*create, "taken", "-"), b"x", "exists already"),
        ((*create, "empty", "-"), b"", "has 0 bytes"),
        ((*create, "large", "-"), bytes(600 << 10), "614400 bytes"),
        ((*create, "../etc", "-"), b"x", "is invalid"),
        (("run", "--secret", "nothing", busybox), b"", "no such secret: nothing"),
        (("run", "--secret", "taken,target=/../x", busybox), b"", "cannot be at"),
        (("run", "--secret", "taken,type=env", busybox), b"", "variables are seen by everybody"),
        (("run", "--secret", "taken,mode=9", busybox), b"", "not an octal mode"),
    ):
        done = daemon.trivet(*words, input=data)
        assert done.returncode, words
        assert said in done.stderr.decode(), words
    daemon.ok("secret", "rm", "taken")
