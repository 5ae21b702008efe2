"""RUN --device: devices by the names that CDI files give them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.build.workshop import Workshop

from trivet.base.error import Corrupt
from trivet.build.error import BuildError

pytestmark = pytest.mark.needs("root")

NAME = "vendor.com/thing"
OPEN = "busybox dd if=/dev/thing count=0 2>&1 && echo opened"
ALL: dict[str, Any] = {"allow": ["device"]}


@pytest.fixture
def described(workshop: Workshop, tmp_path: Path) -> Iterator[Path]:
    """A directory of CDI files: a thing that is /dev/fuse with its mount, and one that is a variable, in YAML."""
    (tmp_path / "library").write_text("of the host\n")
    node = {"path": "/dev/thing", "hostPath": "/dev/fuse", "permissions": "rw", "fileMode": 0o640, "gid": 7}
    mount = {"hostPath": str(tmp_path / "library"), "containerPath": "/usr/lib/thing", "options": ["ro", "bind"]}
    write(
        workshop.root / "cdi" / "thing.json",
        kind=NAME,
        containerEdits={"env": ["KIND=any"], "additionalGids": [44]},
        devices=[{"name": "one", "containerEdits": {"deviceNodes": [node], "mounts": [mount]}}],
    )
    text = f"cdiVersion: '0.6.0'\nkind: {NAME}\ndevices:\n- name: two\n  containerEdits: {{env: [TWO=yes]}}\n"
    (workshop.root / "cdi" / "two.yaml").write_text(
        f"{text}  annotations: {{org.mobyproject.buildkit.device.class: soft}}\n"
    )
    yield workshop.root / "cdi"
    for path in workshop.root.glob("cdi*/*"):
        path.unlink()


def write(path: Path, **fields: Any) -> None:
    """Write a CDI file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cdiVersion": "0.6.0", **fields}))


def test_a_device_is_given(workshop: Workshop, described: Path) -> None:
    """A step has the node, the mount, the variables and groups of its device; the next one and the image have not."""
    show = f"{OPEN}; stat -c %a:%g /dev/thing; cat /usr/lib/thing; echo $KIND; echo groups $(id -G)"
    built = workshop.build(f"FROM base\nRUN --device={NAME}=one {show}\nRUN ls /dev/thing /usr/lib/thing || env", **ALL)
    said = built.output.splitlines()
    assert "opened" in said
    assert "640:7" in said
    assert "of the host" in said
    assert "any" in said
    assert "groups 0 44" in said
    assert not any(line.startswith("KIND=") for line in said)
    assert "KIND=any" not in (built.config.env or ())
    assert [layer for layer in built.layers[1:] if "usr/lib/thing" in layer] == []


def test_names_and_kinds(workshop: Workshop, described: Path) -> None:
    """A kind is its first device, `*` all of them, and a class those that are annotated with it."""
    shown = "echo ${KIND}-${TWO}-$(ls /dev/thing 2>/dev/null)"
    for name, expected in (
        (NAME, "any--/dev/thing"),
        (f"{NAME}=two", "-yes-"),
        (f"{NAME}=*", "any-yes-/dev/thing"),
        (f"{NAME}=soft", "-yes-"),
    ):
        assert (
            workshop.build(f"FROM base\nRUN --device={name} {shown}", no_cache=True, **ALL).output == f"{expected}\n"
        ), name


def test_required_and_optional(workshop: Workshop, described: Path) -> None:
    """A device that isn't there fails a step that requires it; another runs without, and says so."""
    with pytest.raises(BuildError, match=r"Dockerfile:2: there is no device other\.com/x=y on this machine"):
        workshop.build("FROM base\nRUN --device=other.com/x=y,required echo ran", **ALL)
    built = workshop.build("FROM base\nRUN --device=other.com/x=y echo ran", **ALL)
    assert built.output == "there is no device other.com/x=y on this machine; the step runs without it\nran\n"


def test_a_device_needs_a_grant(workshop: Workshop, described: Path) -> None:
    """Without a grant no device is given, unless the machine's owner has said so; a grant is for all, a kind or one."""
    line = f"FROM base\nRUN --device={NAME}=one true"
    for allow in ([], ["security.insecure"], [f"device={NAME}=two"]):
        with pytest.raises(BuildError, match=f"Dockerfile:2: RUN --device={NAME}=one is not granted"):
            workshop.build(line, allow=allow)
    for allow in (["device"], [f"device={NAME}"], [f"device={NAME}=one"]):
        workshop.build(line, allow=allow)
    with pytest.raises(BuildError, match="--allow device=/dev/fuse is unknown"):
        workshop.build(line, allow=["device=/dev/fuse"])
    note = {"org.mobyproject.buildkit.device.autoallow": "true"}
    write(described / "free.json", kind="free.com/x", annotations=note, devices=[{"name": "a"}])
    assert workshop.build("FROM base\nRUN --device=free.com/x=a echo ran").output == "ran\n"


def test_the_device_is_part_of_the_step(workshop: Workshop, described: Path) -> None:
    """A step that was done with a device isn't taken from the cache for one without, and is for one with it."""
    line = f"FROM base\nRUN --device={NAME}=two,required echo step"
    assert workshop.build(line, **ALL).output == "step\n"
    assert workshop.build(line, **ALL).output == ""
    assert workshop.build("FROM base\nRUN echo step").output == "step\n"


def test_what_cannot_be_given(workshop: Workshop, described: Path) -> None:
    """Hooks on the host, nodes that are none, and broken files are refused by name; the later directory counts."""
    hook = {"hookName": "createContainer", "path": "/bin/true"}
    bad = workshop.root / "cdi-later" / "bad.json"
    edits: list[tuple[dict[str, Any], str]] = [
        ({"hooks": [hook]}, "device vendor.com/thing=one cannot be given to a build: .* hooks that run on the host"),
        ({"deviceNodes": [{"path": "/etc/passwd"}]}, "cannot give device /etc/passwd: it is not a device"),
        ({"deviceNodes": [{"path": "/dev/nowhere"}]}, "cannot give device /dev/nowhere: no such file"),
    ]
    for each, said in edits:
        write(bad, kind=NAME, devices=[{"name": "one", "containerEdits": each}])
        with pytest.raises(BuildError, match=said):
            workshop.build(f"FROM base\nRUN --device={NAME}=one true", **ALL)
    bad.write_text("{")
    with pytest.raises(Corrupt, match=r"cannot read the device specification .*bad\.json"):
        workshop.build(f"FROM base\nRUN --device={NAME}=one true", **ALL)
