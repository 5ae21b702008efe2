"""The older packet filter (ip_tables), of which nftables shows nothing: read by its own program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

PROGRAMS = {4: ("iptables-legacy", "iptables"), 6: ("ip6tables-legacy", "ip6tables")}
_TABLES = {4: "ip_tables_names", 6: "ip6_tables_names"}
_PATIENCE = "5"  # seconds, for others who hold its lock
_TIMEOUT = 20


def program(version: int) -> str:
    """Tell what its program is called here; "" when there is none."""
    return next((name for name in PROGRAMS[version] if shutil.which(name)), "")


def show_chain(chain: str, version: int) -> str:
    """Show a chain of table filter as its program does; empty when that isn't in use, or nobody can read it."""
    used = Path("/proc/thread-self/net", _TABLES[version])  # asking the program would bring the table into being
    if not used.exists() or "filter" not in used.read_text().split() or not (name := program(version)):
        return ""
    command = [name, "-w", _PATIENCE, "-S", chain]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=_TIMEOUT, check=False).stdout
