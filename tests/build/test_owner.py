"""--chown, against an image's user and group lists."""

from __future__ import annotations

import pytest

from trivet.build.error import BuildError
from trivet.build.owner import resolve_owner

FILES = {
    "/etc/passwd": b"root:x:0:0::/:\napp:x:1000:1001::/:\nbroken\nbig:x:4294967295:0::/:\nneg:x:-1:0::/:\n",
    "/etc/group": b"root:x:0:\nwheel:x:10:app\n",
}


def read(path: str) -> bytes:
    """Read a file of the image."""
    return FILES[path]


@pytest.mark.parametrize(
    ("spec", "owner"),
    [
        ("app", (1000, 1001)),
        ("app:wheel", (1000, 10)),
        ("app:7", (1000, 7)),
        ("55", (55, 55)),
        ("55:wheel", (55, 10)),
        ("0:0", (0, 0)),
        ("app:", (1000, 1001)),
    ],
)
def test_owners(spec: str, owner: tuple[int, int]) -> None:
    """Names and numbers mean what Docker takes them for."""
    assert resolve_owner(spec, read) == owner


@pytest.mark.parametrize(
    "spec", ["nobody", "app:nobody", "big", "neg", "4294967295", "-1", "broken", "1:99999999999", "²"]
)
def test_mistakes(spec: str) -> None:
    """Unknown names and numbers out of range are refused, never taken for root (SECURITY rows 13, 14)."""
    with pytest.raises(BuildError, match="--chown"):
        resolve_owner(spec, read)
