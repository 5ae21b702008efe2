"""Builds that say what is in an image and how it was made."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Daemon
from tests.image.served import trivet_registry


def test_a_build_attaches_what_it_is_asked_for(daemon: Daemon, busybox: str, tmp_path: Path) -> None:
    """--sbom and --provenance tell packages and origins beside the image; its digest, and theirs, are as before."""
    (tmp_path / "status").write_text("Package: one\nStatus: install ok installed\nVersion: 1\n")
    text = f"FROM {busybox}\nARG TOKEN\nCOPY status /var/lib/dpkg/status\nRUN true\n"
    (tmp_path / "Dockerfile").write_text(text)
    words = ("build", "-q", "--timestamp", "1000000000", "--build-arg", "TOKEN=hush")
    plain = daemon.ok(*words, "-t", "attested:0", tmp_path)
    for number, wishes in enumerate(
        (("--sbom", "--provenance"), ("--attest=type=sbom", "--attest=type=provenance")), 1
    ):
        again = daemon.ok(*words, *wishes, "-t", f"attested:{number}", tmp_path)
        assert again == plain
    shown = daemon.client.images.get("attested:1").attestations
    assert {each["kind"] for each in shown} == {"application/spdx+json", "application/vnd.in-toto+json"}
    assert len(shown) == 2
    assert "pkg:deb/debian/one@1" in daemon.ok("sbom", "attested:1")
    assert json.loads(daemon.ok("sbom", "--json", "attested:1"))["spdxVersion"] == "SPDX-2.3"
    stored = [path.read_bytes() for path in daemon.root.glob("content/blobs/sha256/*") if path.stat().st_size < 9999]
    statement = [json.loads(each) for each in stored if b"slsa.dev/provenance" in each][-1]
    assert statement["subject"][0]["digest"]["sha256"]
    definition = statement["predicate"]["buildDefinition"]
    assert [each["uri"] for each in definition["resolvedDependencies"]] == [f"docker-image:{busybox}"]
    assert definition["externalParameters"]["buildArguments"] == ["TOKEN"]
    assert "hush" not in json.dumps(statement)
    assert b"the type is sbom or provenance" in daemon.trivet(*words, "--attest=type=else", tmp_path).stderr
    daemon.ok("rmi", "attested:0", "attested:1", "attested:2")


def test_an_attestation_can_be_left_out(daemon: Daemon, busybox: str, tmp_path: Path) -> None:
    """disabled=true takes back what another word of the line asks for."""
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\nRUN echo other >/other\n")
    daemon.ok("build", "-q", "--provenance", "--attest=type=provenance,disabled=true", "-t", "attested:3", tmp_path)
    assert daemon.client.images.get("attested:3").attestations == []
    daemon.ok("rmi", "attested:3")


def test_what_is_told_comes_along_with_a_pull(daemon: Daemon, busybox: str, tmp_path: Path) -> None:
    """`pull --referrers` keeps SBOM and provenance; without it a pull brings the image alone."""
    (tmp_path / "status").write_text("Package: one\nStatus: install ok installed\nVersion: 1\n")
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\nCOPY status /var/lib/dpkg/status\n")
    with trivet_registry(tmp_path / "served") as registry:
        name = f"{registry}/told:1"
        daemon.ok("build", "-q", "--sbom", "--provenance", "-t", name, tmp_path)
        told = daemon.ok("sbom", "--json", name)
        daemon.ok("push", "-q", name)
        daemon.ok("rmi", name)
        daemon.ok("pull", "-q", name)
        assert daemon.client.images.get(name).attestations == []
        daemon.ok("pull", "-q", "--referrers", name)
        kinds = {each["kind"] for each in daemon.client.images.get(name).attestations}
        assert kinds == {"application/spdx+json", "application/vnd.in-toto+json"}
        assert daemon.ok("sbom", "--json", name) == told
        daemon.ok("rmi", name)
        assert daemon.client.system.check() == []
