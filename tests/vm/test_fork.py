"""Machines that are forked from a template: they share its memory, and nothing that tells them apart."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.conformance.harness import Harness

from trivet.hypervisor import memory
from trivet.hypervisor.qmp import Qmp
from trivet.hypervisor.template import Templates
from trivet.isolation import fork, machine, provision
from trivet.isolation.plan import Mount
from trivet.isolation.vm import VmDriver

pytestmark = pytest.mark.vm

MEBIBYTE = 1 << 20
FORKS = int(os.environ.get("TRIVET_FORKS", "10"))  # a thousand take ten minutes on two idle processors
IDENTITY = (
    "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | md5sum; date +%s"
)


@pytest.fixture(scope="module")
def cache(driver: VmDriver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has the kernel, and no template yet."""
    place = tmp_path_factory.mktemp("cache")
    (place / "kernel").symlink_to(driver.cache / "kernel")
    shutil.copy(driver.cache / "acceleration", place)
    return place


@pytest.fixture(scope="module")
def own(cache: Path) -> VmDriver:
    """A driver with templates of its own."""
    return VmDriver(cache)


def template_sum(own: VmDriver, harness: Harness) -> int:
    """Sum up the memory of the template that a machine was forked from."""
    host = provision.acquire(own.cache, harness.plan, template=True)
    with Templates(own.cache / "template").use(machine.machine(harness.plan, host), 60) as template:
        return memory.checksum(template.memory)


def on_disk(own: VmDriver) -> list[Path]:
    """Wait for the one template to be written out."""
    deadline = time.monotonic() + 20
    while not (places := list((own.cache / "template").glob("[!.]*/sums"))):
        assert time.monotonic() < deadline, "no template on disk"
        time.sleep(0.02)
    return [place.parent for place in places]


def test_no_two_forks_have_an_identity_in_common(own: VmDriver, make: Callable[[VmDriver], Harness]) -> None:
    """Forks made at the same time differ in whatever is random, and have the right time."""
    forks = [make(own) for _ in range(FORKS)]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda each: (each.shell(IDENTITY).lines, time.time()), forks))
    seen = [word for lines, _ in results for word in lines[:3]]
    assert len(set(seen)) == 3 * FORKS, "something random came twice"
    assert all(0 <= now - int(lines[3]) < 30 for lines, now in results)
    assert own.templates()[0] <= 1


def test_a_balloon_takes_nothing_from_siblings(own: VmDriver, make: Callable[[VmDriver], Harness]) -> None:
    """A fork whose balloon is blown up leaves the template, its siblings and later forks intact."""
    sibling, blown, later = make(own), make(own), make(own)
    witness = sibling.start(
        "sh", "-c", "head -c 40000000 /dev/urandom > /tmp/x; sha256sum /tmp/x; read go; sha256sum /tmp/x", stdin=True,
        mounts=(Mount(kind="tmpfs", target="/tmp"),),
    )  # fmt: skip
    first = witness.until(b"\n")
    blown.start("sleep", "600")
    before = template_sum(own, blown)
    with Qmp(Path(blown.plan.directory, machine.QMP)) as qmp:
        qmp.balloon(400 * MEBIBYTE)
        deadline = time.monotonic() + 30
        while qmp.execute("query-balloon")["actual"] > 401 * MEBIBYTE:
            assert time.monotonic() < deadline, "the guest gives nothing"
            time.sleep(0.02)
    assert template_sum(own, blown) == before
    witness.channel.write(b"go\n")
    assert witness.wait().stdout == first * 2
    assert later.run("sha256sum", "/bin/busybox").code == 0
    assert blown.exec("true").wait().code == 0


def test_a_template_outlives_the_engine(own: VmDriver, make: Callable[[VmDriver], Harness]) -> None:
    """Another engine finds the template on disk and forks from it."""
    make(own).run("true")
    places = on_disk(own)
    again = VmDriver(own.cache)
    harness = make(again)
    harness.start("sleep", "600")
    assert fork.noted(harness.plan) == fork.FORKED
    assert on_disk(again) == places


def test_a_machine_with_shared_files_is_forked(
    own: VmDriver, make: Callable[[VmDriver], Harness], tmp_path: Path
) -> None:
    """A fork sees the host's files, and the host what it writes there, while the template keeps its memory."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "in").write_text("hello\n")
    harness = make(own)
    mounts = (Mount(kind="bind", source=str(shared), target="/data"),)
    session = harness.start("sh", "-c", "cat /data/in > /data/out; read go", stdin=True, mounts=mounts)
    assert fork.noted(harness.plan) == fork.FORKED
    before = template_sum(own, harness)
    session.channel.write(b"\n")
    session.wait()
    assert (shared / "out").read_text() == "hello\n"
    assert template_sum(own, harness) == before


def test_a_damaged_template_is_made_anew(own: VmDriver, make: Callable[[VmDriver], Harness]) -> None:
    """What was changed on disk is noticed by its checksum; the machine starts all the same."""
    make(own).run("true")
    (place,) = on_disk(own)
    with (place / "memory").open("r+b") as file:
        file.seek(64 * MEBIBYTE)
        file.write(b"damage")
    again = VmDriver(own.cache)
    harness = make(again)
    harness.start("sleep", "600")
    assert fork.noted(harness.plan) == fork.FORKED
    on_disk(again)


def test_a_machine_that_cannot_be_forked_boots(
    own: VmDriver, make: Callable[[VmDriver], Harness], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no template can be made the machine boots, and says why."""
    broken = tmp_path / "setpriv"
    broken.write_text("#!/bin/sh\necho no more processes >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    harness = make(VmDriver(own.cache))
    harness.plan = harness.planned("sleep", "600", memory=256 * MEBIBYTE)
    harness.driver.prepare(harness.plan)
    harness.driver.start(harness.plan).close()
    assert fork.noted(harness.plan) == "booted cannot make a template of a machine: it ended: no more processes"
