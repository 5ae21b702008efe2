"""Control characters in what instances wrote: made visible before they reach somebody's terminal.

Colours stay, whatever else could move the cursor, retitle the window or answer back is shown as a
symbol. (Logs are replayed long after the program that wrote them was trusted with a terminal.)
"""

from __future__ import annotations

import re

# Kept: tab, line feed, CR LF, and colours ("select graphic rendition" without 8, which conceals).
_SAFE = rb"\t|\n|\r\n|\x1b\[(?:(?!8[;m])\d{1,3};)*(?:(?!8m)\d{1,3})?m"
_CONTROL = rb"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]"
_TOKEN = b"(?P<safe>" + _SAFE + b")|(?P<control>" + _CONTROL + b")"
# What could be the beginning of something that the next piece completes.
_UNFINISHED = rb"(?:\r|\xc2|\x1b(?:\[[\d;]{0,24})?)\Z"
_TEXT = r"[\x00-\x1f\x7f-\x9f]"


class Neutraliser:
    """Filters a stream of bytes that comes in pieces."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> bytes:
        """Filter a piece; an unfinished sequence at its end waits for the next."""
        data = self._pending + data
        match = re.search(_UNFINISHED, data)  # compiled with the first: most commands show no output
        end = match.start() if match else len(data)
        self._pending = data[end:]
        return re.sub(_TOKEN, _replace, data[:end])

    def finish(self) -> bytes:
        """Filter what still waits."""
        data, self._pending = self._pending, b""
        return re.sub(_TOKEN, _replace, data)


def visible(text: str) -> str:
    """Show control characters of a text in a table as symbols."""
    if text.isprintable():
        return text
    return re.sub(_TEXT, lambda match: _symbol(ord(match[0])), text)


def _replace(match: re.Match[bytes]) -> bytes:
    if match["safe"] is not None:
        return match[0]
    return _symbol(match[0][-1]).encode()


def _symbol(code: int) -> str:
    """Give the picture of a control character: ␛ for escape (Unicode block 2400)."""
    if code == 0x7F:
        return "␡"
    return chr(0x2400 + code) if code < 0x20 else "�"
