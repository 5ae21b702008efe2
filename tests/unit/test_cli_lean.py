"""What commands import: each begins anew, and waits for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

NEEDLESS = {"pathlib", "tarfile", "subprocess", "socket", "tempfile", "json", "uuid", "platform", "decimal", "gettext"}


def imported(program: str) -> set[str]:
    """Import something in an interpreter of its own; give all that is there then."""
    text = f"import sys\n{program}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", text], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_build_takes_no_more_than_it_needs() -> None:
    """`trivet build` waits for none of the big modules that few builds need."""
    found = imported("import trivet.cli.main, trivet.cli.build, trivet.client.client, trivet.client.image")
    assert "trivet.cli.build" in found
    assert not found & NEEDLESS


@pytest.mark.parametrize("name", ["uuid", "decimal", "textwrap", "gettext", "datetime"])
def test_who_wants_a_module_gets_the_real_one(name: str) -> None:
    """What stood in for a module while msgspec was imported is gone."""
    shown = f"[{name}.__spec__.origin, sys.modules['{name}'] is {name}]"
    text = f"import trivet.cli.main, {name}, json, sys; print(json.dumps({shown}))"
    done = subprocess.run([sys.executable, "-I", "-c", text], capture_output=True, text=True, check=True)
    origin, same = json.loads(done.stdout)
    assert origin.endswith(f"/{name}.py")
    assert same


def test_times_and_numbers_of_the_engine_are_read() -> None:
    """msgspec knows dates although it was imported without their module."""
    text = (
        "import trivet.cli.main, msgspec, datetime;"
        "print(msgspec.json.decode(b'\"2026-01-02T03:04:05Z\"', type=datetime.datetime).isoformat())"
    )
    done = subprocess.run([sys.executable, "-I", "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2026-01-02T03:04:05+00:00"
