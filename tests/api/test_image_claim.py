"""What an image says about itself gives it nothing: labels are no wishes, and volumes stay inside its root."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.docker.request import Link

pytestmark = pytest.mark.needs("root")

LABELS = {
    "trivet.isolation": "process",
    "com.docker.compose.project": "somebodys",
    "cdi.k8s.io/devices": "vendor.com/device=all",
    "run.oci.keep_original_groups": "1",
    "io.kubernetes.cri-o.Devices": "/dev/mem",
}


def test_labels_of_an_image_are_no_wishes(daemon: Daemon) -> None:
    """By either API an instance gets the level, devices and users it would have without them."""
    words = [word for key, value in LABELS.items() for word in ("-c", f"LABEL {key}={value}")]
    daemon.ok("import", "-q", *words, "-c", 'CMD ["sh"]', "-", "claim:labels", input=busybox_tar())
    daemon.ok("create", "--name", "claim-native", "claim:labels", "ls", "/dev")
    link = Link(str(daemon.run / "docker.sock"))
    body = json.dumps({"Image": "claim:labels", "Cmd": ["ls", "/dev"]}).encode()
    link.request("POST", "/v1.43/containers/create?name=claim-docker", body, {"Content-Type": "application/json"})
    assert link.getresponse().status == 201
    link.close()
    for name in ("claim-native", "claim-docker"):
        assert daemon.client.instances.get(name).isolation == "container"
        devices = daemon.ok("start", "-a", name).split()
        assert "null" in devices
        assert not {"mem", "kmsg", "kvm", "fuse"} & set(devices)
        daemon.ok("rm", name)
    daemon.ok("rmi", "claim:labels")


@pytest.mark.parametrize("level", ["process", "container", pytest.param("vm", marks=pytest.mark.vm)])
def test_volumes_of_an_image_stay_in_its_root(daemon: Daemon, tmp_path: Path, level: str) -> None:
    """A volume whose path climbs, or leads over a link, is filled from the image and changes nothing of the host."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "secret").write_text("of the host")
    climbing = f"/../../../../../..{canary}"
    words = ("-c", f"VOLUME {climbing}", "-c", f"WORKDIR {climbing}", "-c", 'CMD ["sh"]')
    daemon.ok("import", "-q", *words, "-", "claim:volume", input=busybox_tar())
    options = ("--rm", "--isolation", level)
    said = daemon.ok("run", *options, "claim:volume", "sh", "-c", f"cat {canary}/secret 2>&1; echo x >{canary}/x; pwd")
    assert "of the host" not in said
    assert [path.name for path in canary.iterdir()] == ["secret"]
    daemon.ok("rmi", "claim:volume")
