"""Users of an instance's own on kernels that are older than this one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.conformance.harness import Harness

from trivet.base.error import Unsupported
from trivet.isolation.local import COMMON
from trivet.isolation.plan import Mount, Plan
from trivet.launch.operation import OpenOverlay, Operation


@pytest.mark.parametrize("attached", [0, 1, 2])
def test_overlay_of_mapped_layers(instance: Harness, monkeypatch: pytest.MonkeyPatch, attached: int) -> None:
    """Layers show the container's owners however the kernel wants the overlay to be made; nothing shows on the host.

    The place where old kernels want the layers mounted hides nothing of the host's that the container is given.
    """
    if instance.level != "container":
        pytest.skip("only containers have users of their own")
    planned = instance.driver._plan  # type: ignore[attr-defined]

    def changed(plan: Plan) -> list[Operation]:
        return [
            msgspec.structs.replace(step, attached=attached) if isinstance(step, OpenOverlay) else step
            for step in planned(plan)
        ]

    monkeypatch.setattr(instance.driver, "_plan", changed)
    assert any(isinstance(step, OpenOverlay) for step in changed(instance.plan))
    script = "stat -c %u:%g /bin /etc/passwd; echo >/new; chown 5:6 /new; stat -c %u:%g /new; mkdir /d; rm /etc/passwd"
    given = Path(COMMON, f"{instance.id}-given")
    given.write_text("of the host\n")
    try:
        mount = Mount(kind="bind", source=str(given), target="/given")
        result = instance.shell(f"{script}; cat /given", mounts=(mount,))
    finally:
        given.unlink()
    assert (result.code, result.lines) == (0, ["0:0", "0:0", "5:6", "of the host"])
    assert instance.mounts() == []


def test_layers_that_cannot_be_mapped(instance: Harness) -> None:
    """Layers on a file system that shows no other owners are refused with what helps, and nothing is left mounted."""
    if instance.level != "container":
        pytest.skip("only containers have users of their own")
    root = msgspec.structs.replace(instance.root, lowers=("/proc/sys",))
    with pytest.raises(Unsupported, match="users of its own") as refused:
        instance.run("true", root=root)
    assert "--userns host" in str(refused.value.hint)
    assert instance.mounts() == []
