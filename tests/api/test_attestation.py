"""Builds that say what is in an image and how it was made."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Daemon


def test_a_build_attaches_what_it_is_asked_for(daemon: Daemon, busybox: str, tmp_path: Path) -> None:
    """--sbom and --provenance tell packages and origins beside the image; its digest, and theirs, are as before."""
    (tmp_path / "status").write_text("Package: one\nStatus: install ok installed\nVersion: 1\n")
    text = f"FROM {busybox}\nARG TOKEN\nCOPY status /var/lib/dpkg/status\nRUN true\n"
    (tmp_path / "Dockerfile").write_text(text)
    words = ("build", "-q", "--timestamp", "1000000000", "--build-arg", "TOKEN=hush")
    plain = daemon.ok(*words, "-t", "attested:0", tmp_path)
    for number in (1, 2):
        again = daemon.ok(*words, "--sbom", "--provenance", "-t", f"attested:{number}", tmp_path)
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
    daemon.ok("rmi", "attested:0", "attested:1", "attested:2")
