"""Where machines' disks come from on the web: addresses with checksums, and simplestreams catalogues."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.vm.box import NEEDS
from tests.vm.web import Web, certificate, serving

from trivet.oci import platform

pytestmark = [pytest.mark.vm, pytest.mark.needs(*NEEDS, "openssl", "gpg", "gpgv")]
SIZE = 8 << 20


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A server with a disk image of random content on it."""
    home = tmp_path_factory.mktemp("web")
    (home / "files").mkdir()
    raw = home / "disk.raw"
    raw.write_bytes(os.urandom(SIZE))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, home / "files/disk.qcow2"], check=True)
    with serving(home / "files", certificate(home)) as made:
        yield made


@pytest.fixture(scope="module")
def engine(web: Web, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """An engine that trusts that server."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        made = Daemon(tmp_path_factory.mktemp("sources"), run)
        made.prefix = ("env", f"SSL_CERT_FILE={web.directory.parent / 'cert.pem'}")
        undo.callback(made.clean)
        made.start()
        yield made


def checksum(file: Path) -> str:
    """Give a file's SHA-256."""
    return "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()


def written(engine: Daemon, name: str, target: Path) -> bytes:
    """Write a machine's disk as a raw file; its content."""
    engine.ok("vm", "export", name, target)
    return target.read_bytes()[:SIZE]


def test_a_disk_is_fetched_once_and_goes_on_where_it_broke_off(engine: Daemon, web: Web, tmp_path: Path) -> None:
    """What breaks off is gone on with, the machine has the very blocks, and a second one asks nobody."""
    url, file = f"{web.address}/disk.qcow2", web.directory / "disk.qcow2"
    web.breaks = 3 << 20
    options = ["--image", url, "--checksum", checksum(file), "--network", "none"]
    engine.ok("vm", "create", "first", *options, "--disk", "64m")
    web.breaks = 0
    begins = [int(wanted.removeprefix("bytes=").rstrip("-") or 0) for _, wanted in web.asked]
    assert len(begins) >= 3
    assert begins == sorted(set(begins))
    assert written(engine, "first", tmp_path / "a.raw") == (web.directory.parent / "disk.raw").read_bytes()
    web.asked.clear()
    engine.ok("vm", "create", "again", *options)
    assert web.asked == []
    engine.ok("vm", "rm", "first", "again")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["/disk.qcow2"], "can only be believed with a checksum"),
        (["/disk.qcow2", "--checksum", "md5:00"], "is no checksum"),
        (["/disk.qcow2", "--checksum", "sha256:" + "0" * 64], "is not what was asked for"),
        (["/none.qcow2", "--checksum", "sha256:" + "0" * 64], "there is no https://"),
        (["/disk.img", "--checksum", "sha256:" + "0" * 64], "its name does not say what it is"),
    ],
)
def test_what_cannot_be_believed_is_refused(engine: Daemon, web: Web, options: list[str], complaint: str) -> None:
    """Without its checksum nothing is taken, and nothing of it stays."""
    done = engine.trivet("vm", "create", "wrong", "--image", web.address + options[0], *options[1:])
    assert complaint in done.stderr.decode()
    assert engine.trivet("vm", "info", "wrong").returncode == 1


def catalogue(web: Web, path: str = "images/disk.qcow2") -> None:
    """Publish the disk in two versions, one broken and old, beside products that aren't for us."""
    host = platform.host().architecture
    file = web.directory / "disk.qcow2"
    (web.directory / "images").mkdir(exist_ok=True)
    shutil.copy(file, web.directory / "images/disk.qcow2")
    item = {"ftype": "disk-kvm.img", "path": path, "sha256": checksum(file)[7:], "size": file.stat().st_size}
    old = {"disk": {**item, "sha256": "0" * 64}}
    product = {"aliases": "12,bookworm", "os": "Debian", "release_title": "12", "arch": host}
    products = {
        f"debian:12:{host}": {**product, "versions": {"20240101": {"items": old}, "20250101": {"items": {"d": item}}}},
        "debian:12:vax": {**product, "arch": "vax", "versions": {"1": {"items": old}}},
        f"debian:13:{host}": {**product, "versions": {"1": {"items": {"tar": {**item, "ftype": "squashfs"}}}}},
    }
    entry = {"datatype": "image-downloads", "path": "streams/v1/images.json", "products": list(products)}
    home = web.directory / "streams/v1"
    home.mkdir(parents=True, exist_ok=True)
    (home / "index.json").write_text(json.dumps({"format": "index:1.0", "index": {"images": entry}}))
    (home / "images.json").write_text(json.dumps({"format": "products:1.0", "products": products}))


def signed(web: Web, home: Path, name: str) -> Path:
    """Sign the catalogue's documents with a new key; a keyring with it."""
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--yes", "--quiet", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", name, "ed25519", "sign"], check=True, capture_output=True)
    for document in ("index", "images"):
        path = web.directory / "streams/v1" / document
        target = ["--output", f"{path}.sjson", "--clearsign", f"{path}.json"]
        subprocess.run([*gpg, *target], check=True, capture_output=True)
    keyring = home / "keys.gpg"
    subprocess.run([*gpg, "--output", str(keyring), "--export"], check=True, capture_output=True)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False, capture_output=True)
    return keyring


def test_a_catalogue_is_read_and_its_newest_disk_taken(engine: Daemon, web: Web, tmp_path: Path) -> None:
    """One product is for us; it is named by its aliases, and what is made from it has the published blocks."""
    catalogue(web)
    listed = engine.client.machines.catalogue(web.address)
    assert [(each.names[0], each.version) for each in listed] == [("debian/12", "20250101")]
    assert "debian/12" in engine.ok("vm", "images", "--catalogue", web.address)
    options = ["--image", "stream:debian/bookworm", "--catalogue", web.address, "--network", "none"]
    engine.ok("vm", "create", "one", *options, "--disk", "64m")
    assert written(engine, "one", tmp_path / "a.raw") == (web.directory.parent / "disk.raw").read_bytes()
    engine.ok("vm", "rm", "one")
    missing = engine.trivet("vm", "create", "two", "--image", "stream:debian/99", "--catalogue", web.address)
    assert "has no disk image debian/99" in missing.stderr.decode()


def test_a_keyring_asks_for_its_owners_signature(engine: Daemon, web: Web, tmp_path: Path) -> None:
    """What was signed is read; what somebody else signed, or changed afterwards, or didn't sign, is not."""
    catalogue(web)
    mine = signed(web, tmp_path / "mine", "mine")
    assert "debian/12" in engine.ok("vm", "images", "--catalogue", web.address, "--keyring", mine)
    document = web.directory / "streams/v1/images.sjson"
    good = document.read_text()
    document.write_text(good.replace("20250101", "20250102"))
    assert (
        "is not signed by an owner"
        in engine.trivet("vm", "images", "--catalogue", web.address, "--keyring", mine).stderr.decode()
    )
    document.write_text(document.with_suffix(".json").read_text())
    assert (
        "is not signed by an owner"
        in engine.trivet("vm", "images", "--catalogue", web.address, "--keyring", mine).stderr.decode()
    )
    signed(web, tmp_path / "other", "other")
    assert (
        "is not signed by an owner"
        in engine.trivet("vm", "images", "--catalogue", web.address, "--keyring", mine).stderr.decode()
    )


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "https://elsewhere/disk", "a/../../b"])
def test_a_catalogue_names_no_files_elsewhere(engine: Daemon, web: Web, path: str) -> None:
    """A path that leads out of the catalogue is refused, and a catalogue by http that isn't signed is, too."""
    catalogue(web, path)
    assert "which cannot be" in engine.trivet("vm", "images", "--catalogue", web.address).stderr.decode()
    plain = engine.trivet("vm", "images", "--catalogue", web.address.replace("https", "http"))
    assert "is neither read over https nor signed" in plain.stderr.decode()
