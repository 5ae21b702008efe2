"""Letting go of files' clean pages: what was written, and protected afterwards, stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# A process of its own: what is let go of is all that its libraries have there.
PROGRAM = """
import ctypes, mmap, sys
from trivet.kernel import mapping
libc = ctypes.CDLL(None)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
def resident():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps") if line.startswith("Rss:"))
with open(sys.argv[1], "r+b") as file:
    size = 8 << 20
    read = mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    written = mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE)
    written[:5] = b"mine!"
    begin = ctypes.addressof(ctypes.c_char.from_buffer(written))
    libc.mprotect(begin, size, mmap.PROT_READ)  # as the dynamic linker does with what it has relocated
    assert read[:] == bytes(size)
    before = resident()
    mapping.forget()
    print(before - resident() >= size >> 10, bytes(written[:5]), read[:] == bytes(size))
"""


def test_clean_pages_of_files_go_and_come_back(tmp_path: Path) -> None:
    """Pages that were only read are let go of, those that were written stay, and what is read again is the same."""
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    done = subprocess.run([sys.executable, "-c", PROGRAM, path], capture_output=True, text=True, check=True)
    assert done.stdout == "True b'mine!' True\n"
