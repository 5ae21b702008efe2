"""What is told about images: their packages, found without running anything, and how they were made."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.image.conftest import small_tar
from tests.image.served import trivet_registry

from trivet.engine.image import attestation
from trivet.engine.image.image import Images

DPKG = b"""Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u1
Description: words
 Package: not-one

Package: gone
Status: deinstall ok config-files
Version: 1
"""
APK = b"P:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\n\nP:zlib\nV:1.3\nA:x86_64\nL:Zlib AND (weird)\n"
FILES = {
    "etc/os-release": b'NAME=x\nID="debian"\n',
    "var/lib/dpkg/status": DPKG,
    "var/lib/dpkg/status.d/base": b"Package: base\nVersion: 1:3\n",
    "lib/apk/db/installed": APK,
    "usr/lib/python3/dist-packages/Foo_Bar-1.dist-info/METADATA": b"Name: Foo_Bar\nVersion: 1.0\n\nVersion: 9\n",
    "app/node_modules/@scope/it/package.json": b'{"name": "@scope/it", "version": "3.0.0", "license": "ISC"}',
    "app/node_modules/bad/package.json": b"[" * 100_000,
    "app/node_modules/odd/package.json": b'{"name": ["x"]}',
}
EXPECTED = {
    "pkg:apk/debian/musl@1.2.4-r2?arch=x86_64",
    "pkg:apk/debian/zlib@1.3?arch=x86_64",
    "pkg:deb/debian/base@1%3A3",
    "pkg:deb/debian/libc6@2.36-9%2Bdeb12u1?arch=amd64",
    "pkg:npm/%40scope/it@3.0.0",
    "pkg:pypi/foo-bar@1.0",
}


def urls(bill: dict[str, object]) -> set[str]:
    """The package URLs in a bill."""
    listed = bill["packages"]
    assert isinstance(listed, list)
    return {each["externalRefs"][0]["referenceLocator"] for each in listed if "externalRefs" in each}


def test_packages_are_found(images: Images) -> None:
    """Every manager's packages are listed, what is broken or removed isn't, and the document is SPDX 2.3."""
    images.import_(io.BytesIO(small_tar(**FILES)), "test/app:1")
    bill = images.bill("test/app:1")
    assert urls(bill) == EXPECTED
    assert bill == images.bill("test/app:1")
    assert (bill["spdxVersion"], bill["SPDXID"]) == ("SPDX-2.3", "SPDXRef-DOCUMENT")
    known = {"SPDXRef-DOCUMENT", *(each["SPDXID"] for each in bill["packages"])}
    assert {row[key] for row in bill["relationships"] for key in ("spdxElementId", "relatedSpdxElement")} == known
    licenses = {each["name"]: each["licenseDeclared"] for each in bill["packages"]}
    assert (licenses["musl"], licenses["@scope/it"], licenses["zlib"]) == ("MIT", "ISC", "NOASSERTION")


def test_links_dont_lead_out(images: Images) -> None:
    """A database that is a link to the host's isn't read."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("var/lib/dpkg/status")
        info.type, info.linkname = tarfile.SYMTYPE, "/var/lib/dpkg/status"
        archive.addfile(info)
    images.import_(io.BytesIO(buffer.getvalue()), "test/app:1")
    assert urls(images.bill("test/app:1")) == set()


def test_a_bill_goes_with_its_image(images: Images, make_images: Callable[[str], Images], tmp_path: Path) -> None:
    """An attached bill survives collections, is pushed as a referrer, and goes with its image."""
    with trivet_registry(tmp_path / "served") as registry:
        name = f"{registry}/test/app:1"
        record = images.import_(io.BytesIO(small_tar(**FILES)), name)
        with images.leases.hold("test") as lease:
            body = attestation.bill(images, record, record.manifest, name)
            digest = images.attestations.attach(images, record.manifest, attestation.SPDX, body, lease)
            again = images.attestations.attach(images, record.manifest, attestation.SPDX, body, lease)
        assert digest == again
        images.sweep()
        assert images.inspect(name).attestations == [{"digest": digest, "kind": attestation.SPDX}]
        asyncio.run(images.push(name))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        found = json.load(opener.open(f"http://{registry}/v2/test/app/referrers/{record.manifest}", timeout=10))
        assert [(each["digest"], each["artifactType"]) for each in found["manifests"]] == [(digest, attestation.SPDX)]
    images.remove(name)
    assert not images.content.exists(digest)
    with pytest.raises(Exception, match="no such image"):
        images.bill(name)
