"""Images from the machine's package sources."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from trivet.base.error import InvalidArgument, Unsupported
from trivet.engine.image import apt, bootstrap
from trivet.engine.image.image import Images

DEB822 = """
# the archive
Types: deb deb-src
URIs: http://mirror.test/debian
# a remark inside
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.test/
Suites: bookworm
Components: main

Types: deb
URIs: https://other.test/node
Suites: nodistro
Components: main
"""


def test_both_source_formats_are_read(tmp_path: Path) -> None:
    """deb822 stanzas and one-line entries, with their options; what is off or for source packages is left out."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "old.list.disabled").write_text("deb http://no.test/ bookworm main\n")
    (tmp_path / "sources.list").write_text(
        "deb [signed-by=/k.gpg arch=amd64] http://local.test/ bookworm/updates main # remark\n"
        "deb-src http://local.test/ bookworm main\n# deb http://no.test/ bookworm main\n"
    )
    found = apt.sources(tmp_path)
    assert [source.uris[0].split("/")[2] for source in found] == [
        "local.test",
        "mirror.test",
        "mirror.test",
        "other.test",
    ]
    assert found[0].options == {"Signed-By": "/k.gpg"}
    chosen = apt.for_suite(found, "bookworm", "trixie")
    assert [source.suites for source in chosen] == [
        ("trixie/updates",),
        ("trixie", "trixie-updates"),
        ("trixie-security",),
    ]
    assert apt.for_suite(found, "bookworm", "sid")[0].suites == ("sid",)
    assert "Suites: trixie trixie-updates\nComponents: main contrib\nSigned-By: /usr" in chosen[1].deb822()


@pytest.mark.parametrize("reference", ["bootstrap:", "bootstrap:debian", "bootstrap:debian/../x", "bootstrap:Debian/x"])
def test_malformed_bootstrap_references(images: Images, reference: str) -> None:
    """What isn't distribution/suite is an invalid argument with an example."""
    with pytest.raises(InvalidArgument, match=r"expected bootstrap:DISTRIBUTION/SUITE"):
        asyncio.run(images.pull(reference))


def test_a_missing_program_is_named(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mmdebstrap the error says which package to install."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unsupported, match="mmdebstrap is not installed") as caught:
        asyncio.run(images.pull("bootstrap:debian/bookworm"))
    assert caught.value.hint == "apt-get install mmdebstrap"


@pytest.mark.needs("mmdebstrap")
def test_another_distribution_is_refused(images: Images) -> None:
    """A distribution the machine has no sources for is refused, with the registry as the way out."""
    with pytest.raises(Unsupported, match="cannot bootstrap plan:nine: this machine's package sources are for"):
        asyncio.run(images.pull("bootstrap:plan/nine"))
    with pytest.raises(Unsupported, match="is for linux/s390x"):
        asyncio.run(images.pull("bootstrap:debian/bookworm", "linux/s390x"))


@pytest.mark.needs("root", "mmdebstrap")
def test_a_failing_bootstrap_leaves_nothing(images: Images) -> None:
    """A suite the mirror doesn't have ends with mmdebstrap's reason, and without image, lease or directory."""
    distribution = bootstrap._system()["ID"]
    with pytest.raises(bootstrap.BootstrapFailed, match=f"cannot bootstrap {distribution}:nosuchsuite"):
        asyncio.run(images.pull(f"bootstrap:{distribution}/nosuchsuite"))
    assert images.list() == []
    assert images.leases.all() == []
    assert [path for name in ("scratch", "ingest") for path in (images.content.root / name).iterdir()] == []


@pytest.mark.needs("root", "mmdebstrap")
def test_a_debian_that_can_install_packages(images: Images, tmp_path: Path) -> None:
    """The image is a minimal system of one layer whose apt works, with nothing of the host's in it."""
    system = bootstrap._system()
    if system["ID"] != "debian":
        pytest.skip("this machine isn't a Debian")
    lines: list[str] = []
    record = asyncio.run(images.pull("bootstrap:debian/bookworm", report=lambda line: lines.append(line.status)))
    assert images.find("debian:bookworm").id == images.find("bootstrap:debian/bookworm").id == record.id
    assert len(record.layers) == 1
    assert any("installing" in line for line in lines)
    root = images.snapshotters["mount"].create("test", record)
    base = Path(root.lowers[0])
    assert not (base / "etc/resolv.conf").exists()
    assert not (base / "etc/hostname").exists()
    assert list((base / "var/lib/apt/lists").glob("*Release")) == []
    assert images.config(record).defaults.cmd == ("bash",)
    if shutil.which("chroot") and Path("/etc/resolv.conf").exists():
        point = tmp_path / "point"
        point.mkdir()
        script = (
            f"mount -t overlay -o lowerdir={base},upperdir={root.upper},workdir={root.work} o {point}; "
            f"cp /etc/resolv.conf {point}/etc/; chroot {point} apt-get -qq update; "
            f"chroot {point} apt-get -qq install -y --no-install-recommends hello; chroot {point} hello"
        )
        done = subprocess.run(["unshare", "--mount", "sh", "-ec", script], capture_output=True, text=True, timeout=180)
        assert "Hello, world!" in done.stdout, done.stderr
    images.snapshotters["mount"].remove("test")
