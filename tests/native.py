"""Small static programs that tests run inside: compiled once for each state of their sources, kept beside them.

A guest that is given this checkout read-only, without a compiler, finds them made.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

PLACE = Path(__file__).with_name("inside") / "bin"
INCLUDE = Path("/usr/include")
WORDS = ("-std=gnu11", "-D_GNU_SOURCE=", "-Os", "-static", "-s", "-Wall", "-Wextra", "-Werror")


def compiled(name: str, sources: Iterable[Path]) -> Path:
    """Give the program made of C files and the headers beside them; it must be copied to where it is wanted."""
    files = sorted(sources)
    headers = sorted({header for file in files for header in file.parent.glob("*.h")})
    text = b"\0".join(path.read_bytes() for path in (*files, *headers))
    program = PLACE / f"{name}-{hashlib.sha256(text).hexdigest()[:16]}"
    if program.exists():
        return program
    PLACE.mkdir(exist_ok=True)
    triplet = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()
    kernel = ["-idirafter", str(INCLUDE), "-idirafter", str(INCLUDE / triplet)]  # musl brings no kernel headers
    with tempfile.TemporaryDirectory(dir=PLACE) as scratch:
        made = Path(scratch, name)
        subprocess.run(["musl-gcc", *WORDS, *kernel, "-o", made, *files], check=True)
        made.replace(program)  # two at once: the later one is the same
    return program
