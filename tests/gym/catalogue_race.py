"""Races: a container changes names in a volume while others that share it are started."""

from __future__ import annotations

from tests.gym.attack import Attack, Proof, Weakening

TARGET = ("-v", "{dir}/target:{dir}/target")
SHARED = ("-v", "{shared}:/shared")

ATTACKS = tuple(
    Attack(
        name=f"swap-{what}-{link}",
        row=row,
        reference=reference,
        tries=f"have the target of a {what} made on the host, by a link there that takes its directory's place",
        argv=("list", "/shared"),
        options=(*SHARED, "-v", f"{{dir}}/{source}:/shared/a/b/c/d/made"),
        beside=("swap", "/shared/a", f"/shared/{link}"),
        times=12,
        proof=Proof.CHANGED,
        weak=Weakening(before=TARGET),
    )
    for what, source, row, reference in (
        ("volume", "pts", 7, "CVE-2021-30465"),
        ("file", "file", 8, "CVE-2024-45310"),
    )
    for link in ("link", "dots")
)
