"""What a step's result depends on, as a digest: the files below, what is done to them, and nothing else.

The configuration counts only where a step sees it (environment, user, directory), so that a changed
LABEL or CMD makes no RUN run again. When a step ran, and when its files were changed, never counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from trivet.oci.layer import Layer, chain_ids

_VERSION = 2  # raised when steps come to do something else for the same input


def chain(layers: tuple[Layer, ...]) -> str:
    """Name the files a step begins with; "" for none."""
    return (chain_ids(layer.diff_id for layer in layers) or [""])[-1]


def run_key(
    below: str,
    argv: tuple[str, ...],
    *,
    env: dict[str, str],
    cwd: str,
    user: str,
    network: str,
    script: str,
    mounts: Sequence[object],
    surroundings: Sequence[object],
    epoch: int,
) -> str:
    """Name the result of a RUN."""
    return _key("run", below, argv, sorted(env.items()), cwd, user, network, script, mounts, surroundings, epoch)


def copy_key(
    below: str,
    content: str,
    *,
    target: str,
    into: bool,
    chown: str,
    mode: str,
    epoch: int,
    keeps_times: bool,
) -> str:
    """Name the result of a COPY or ADD.

    `content` is the checksum of what it takes, `target` an absolute path, `into` whether it must be a directory.
    """
    return _key("copy", below, content, target, into, chown, mode, epoch, keeps_times)


def known_copy_key(below: str, source: Sequence[object], wish: Sequence[object], *, epoch: int) -> str:
    """Name the result of a COPY or ADD before anything was read.

    `source` says what the files are, by the chain of another image or by a checksum; `wish` which, and where to.
    """
    return _key("known-copy", below, source, wish, epoch)


def directory_key(below: str, path: str, *, epoch: int) -> str:
    """Name the result of a WORKDIR."""
    return _key("directory", below, path, epoch)


def _key(*parts: object) -> str:
    raw = msgspec.msgpack.encode([_VERSION, *(_plain(part) for part in parts)])
    return hashlib.sha256(raw).hexdigest()


def _plain(value: object) -> object:
    """Names may hold bytes that are no UTF-8, kept as surrogates."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
