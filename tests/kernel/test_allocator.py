"""What a process frees goes back to the host when asked."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, re, sys, threading
from trivet.kernel.allocator import limit_arenas, trim

def anonymous():
    return int(re.search(r"Pss_Anon:\\s+(\\d+)", open("/proc/self/smaps_rollup").read())[1]) >> 10

def work():
    blocks = [bytes(b"x" * (100 << 10)) for _ in range(200)]
    kept.append(blocks[-1])

limit_arenas(2)
kept, before = [], anonymous()
for _ in range(4):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
held = anonymous() - before
trim()
print(held, anonymous() - before)
"""


def test_trim_returns_freed_memory() -> None:
    """Memory that threads freed below a block that stays is held by the allocator, and given back when asked."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    held, kept = (int(word) for word in done.stdout.split())
    assert held >= 15
    assert kept <= 3
