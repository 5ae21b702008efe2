"""Wire shapes of long operations, and of what goes wrong; apart from instances, since every command needs them."""

from __future__ import annotations

from typing import Any

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error, as every non-2xx answer (application/problem+json) and as the last line of a progress stream."""

    kind: str
    message: str
    hint: str | None = None
    exit_code: int = 0  # 126 or 127 where the program itself was the reason; `run` and `exec` exit with it


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a progress stream (NDJSON). The last line has `result` or `error`.

    `id` groups the lines of one part (a layer, a build step); `total` 0 is unknown; `stream` is raw
    output of a build step.
    """

    id: str = ""
    status: str = ""
    current: int = 0
    total: int = 0
    stream: str = ""
    result: dict[str, Any] | None = None
    error: Problem | None = None
