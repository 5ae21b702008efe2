"""Where the engine listens: `unix:///PATH`, given by `--host`, TRIVET_HOST or the default."""

from __future__ import annotations

import os
from collections.abc import Mapping

from trivet.base.error import InvalidArgument

SCHEME = "unix://"
LONGEST = 107  # bytes in sockaddr_un.sun_path without its NUL, unix(7)


class InvalidAddress(InvalidArgument):
    """The engine's address can't be understood."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"engine address {text!r} {reason}", hint="write it as unix:///PATH")


def default_socket(environ: Mapping[str, str] = os.environ) -> str:
    """Tell where the caller's own engine listens: root's for root, otherwise below XDG_RUNTIME_DIR."""
    if os.geteuid() == 0:
        return "/run/trivet/trivet.sock"
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return f"{runtime}/trivet/trivet.sock"


def parse_address(text: str) -> str:
    """Read `unix:///PATH`. Raises `InvalidAddress`."""
    if not text.startswith(SCHEME):
        raise InvalidAddress(text, "is not a unix socket")
    path = text.removeprefix(SCHEME)
    if not path.startswith("/"):
        raise InvalidAddress(text, "has no absolute path")
    if len(os.fsencode(path)) > LONGEST:
        raise InvalidAddress(text, f"is longer than the {LONGEST} bytes a socket path may have")
    return path
