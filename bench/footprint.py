"""What instances have on this machine and may leave behind, counted. A daemon's network is its own (`spawn`)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.account import Account


def footprint(daemon: int, account: Account) -> dict[str, int]:
    """Count what is there now, in the namespaces of the daemon; namespaces that are kept as files are mounts."""
    inside = ("nsenter", "--net", f"--target={daemon}")
    return {
        "processes": len(account.processes()),
        "mounts": len(Path(f"/proc/{daemon}/mountinfo").read_text().splitlines()),
        "control groups": account.directories(),
        "links": len(_lines(*inside, "ip", "-o", "link")),
        "addresses": len(_lines(*inside, "ip", "-o", "address")),
        "rules": len(_lines(*inside, "nft", "list", "ruleset")),
    }


def _lines(*words: str) -> list[str]:
    return subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
