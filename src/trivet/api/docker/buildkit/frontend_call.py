"""`docker build --check` and `--call`: what is told instead of a build, in the JSON that buildx draws its text of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

Told = Mapping[str, Any]


def called(call: str, result: Told) -> dict[str, bytes]:
    """Spell what the builder has answered to `call`."""
    spell = {"check": _check, "targets": _targets, "outline": _outline}[call]
    return {"result.json": msgspec.json.format(msgspec.json.encode(spell(result))), "version": b"1.0.0"} | (
        {"result.statuscode": b"1" if result["warnings"] else b"0"} if call == "check" else {}
    )


def _check(result: Told) -> Told:
    files = list(dict.fromkeys(each["file"] for each in result["warnings"]))
    source = {"language": "Dockerfile", "data": result["source"].encode()}
    return {
        "warnings": [
            {
                "ruleName": each["rule"],
                "detail": each["text"],
                "location": {"sourceIndex": files.index(each["file"]), "ranges": [_range(each["line"])]},
            }
            for each in result["warnings"]
        ],
        "sources": [{"filename": name, **source} for name in files],
    }


def _range(line: int) -> dict[str, dict[str, int]]:
    return {"start": {"line": line}, "end": {"line": line}}


def _targets(result: Told) -> Told:
    return {"targets": [_said(each) for each in result["targets"]], "sources": []}


def _outline(result: Told) -> Told:
    mounts = {"cache": [{"ID": name} for name in result["caches"]]}
    lists = {key: [_said(each) for each in result[key]] for key in ("args", "secrets", "ssh")}
    return _said({"name": result["name"], "description": result["description"], **lists, **mounts})


def _said(values: Told) -> dict[str, Any]:
    """Leave out what is nothing, as Go does."""
    return {key: value for key, value in values.items() if value}
