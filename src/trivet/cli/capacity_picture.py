"""A host's last hour as an SVG: what memory was there, promised, used and forecast, and when it was short. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from trivet.cli.output import binary_size
from trivet.client.schema_capacity import CapacityMoment

WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 90, 150, 40, 50
GAP = 60.0  # seconds without a sample over which no line is drawn

Value = Callable[[CapacityMoment], int]
LINES: tuple[tuple[str, str, str, Value], ...] = (
    ("there is", "#444", "6 4", lambda row: row.room),
    ("promised", "#888", "2 3", lambda row: row.promised),
    ("forecast", "#d9822b", "", lambda row: row.forecast),
    ("used", "#2b6cb0", "", lambda row: row.used),
)


def draw(moments: Sequence[CapacityMoment]) -> str:
    """Draw them; an empty picture says that there is nothing yet."""
    if not moments:
        return _page([_text(WIDTH / 2, HEIGHT / 2, "nothing was measured yet", "middle")])
    begin, end = moments[0].time, max(moments[-1].time, moments[0].time + 1)
    most = max(value(row) for row in moments for *_, value in LINES) * 1.05 or 1

    def x(moment: float) -> float:
        return LEFT + (moment - begin) / (end - begin) * (WIDTH - LEFT - RIGHT)

    def y(size: float) -> float:
        return HEIGHT - BOTTOM - size / most * (HEIGHT - TOP - BOTTOM)

    parts = [_text(LEFT, 24, "Memory of instances on this host")]
    for part in range(5):
        level = most * part / 4
        parts.append(f'<path d="M{LEFT} {y(level):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, y(level) + 4, binary_size(int(level)), "end"))
        moment = begin + (end - begin) * part / 4
        parts.append(
            _text(x(moment), HEIGHT - BOTTOM + 20, time.strftime("%H:%M:%S", time.localtime(moment)), "middle")
        )
    parts += [
        f'<rect x="{x(row.time) - 1.5:.1f}" y="{TOP}" width="3" height="{HEIGHT - TOP - BOTTOM}" fill="#e53e3e" '
        f'opacity="{1.0 if row.short else row.shortage:.2f}"/>'
        for row in moments
        if row.short or row.shortage >= 0.05
    ]
    for place, (name, colour, dash, value) in enumerate(LINES):
        path = _path([(row.time, x(row.time), y(value(row))) for row in moments])
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
        height = TOP + 20 + 22 * place
        parts.append(
            f'<path d="M{WIDTH - RIGHT + 12} {height - 4}h24" stroke="{colour}" stroke-width="2" '
            f'stroke-dasharray="{dash}"/>'
        )
        parts.append(_text(WIDTH - RIGHT + 42, height, name))
    height = TOP + 20 + 22 * len(LINES)
    parts.append(f'<rect x="{WIDTH - RIGHT + 12}" y="{height - 10}" width="24" height="10" fill="#e53e3e"/>')
    parts.append(_text(WIDTH - RIGHT + 42, height, "short, or likely"))
    return _page(parts)


def _path(points: Sequence[tuple[float, float, float]]) -> str:
    """Join what was measured without a gap."""
    words: list[str] = []
    last = -GAP
    for moment, across, down in points:
        words.append(f"{'L' if moment - last <= GAP and words else 'M'}{across:.1f} {down:.1f}")
        last = moment
    return "".join(words)


def _text(across: float, down: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}">{text}</text>'


def _page(parts: Sequence[str]) -> str:
    frame = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    head = f'<svg {frame} font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>', *parts, "</svg>", ""])
