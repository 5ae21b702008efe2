"""Artifacts: files in registries, ours and Debian's, and what refers to what; ORAS's own client beside ours."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import oras.client
import pytest
from tests.conftest import Daemon
from tests.image.conftest import debian_registry
from tests.image.served import trivet_registry

REPORT = "application/vnd.example.report"


@pytest.fixture(scope="module", params=["trivet", pytest.param("debian", marks=pytest.mark.needs("docker-registry"))])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that knows the referrers API, and one that doesn't."""
    start = trivet_registry if request.param == "trivet" else debian_registry
    with start(tmp_path_factory.mktemp("served")) as address:
        yield address


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with files in it."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "report.json").write_text('{"ok": true}')
    (tmp_path / "sub/data.bin").write_bytes(bytes(range(256)) * 1000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_come_back_as_they_were(daemon: Daemon, registry: str, files: Path) -> None:
    """Pushed and pulled, files have their names and content; the same files have the same digest."""
    words = ("artifact", "push", "-q", "--artifact-type", REPORT)
    digest = daemon.ok(*words, f"{registry}/team/report:1", "report.json:application/json", "sub/data.bin")
    assert daemon.ok(*words, f"{registry}/team/again:1", "report.json:application/json", "sub/data.bin") == digest
    daemon.ok("artifact", "pull", "-o", files / "out", f"{registry}/team/report:1")
    for name in ("report.json", "sub/data.bin"):
        assert (files / "out" / name).read_bytes() == (files / name).read_bytes()
    daemon.ok("artifact", "pull", "-o", files / "pinned", f"{registry}/team/report@{digest}")
    assert (files / "pinned/report.json").exists()
    assert not daemon.client.images.list({"reference": ["team/report"]})


def test_what_is_attached_is_found(daemon: Daemon, registry: str, files: Path) -> None:
    """Whoever asks for an image's referrers gets what was attached to it, all or of one type."""
    image = f"{registry}/team/web:1"
    daemon.ok("artifact", "push", "-q", image, "report.json")
    assert daemon.ok("image", "referrers", "--format", "name", image) == ""
    attached = [
        daemon.ok("artifact", "attach", "-q", "--artifact-type", kind, "-a", "by=me", image, "sub/data.bin")
        for kind in (REPORT, "application/vnd.example.other")
    ]
    listed = [json.loads(line) for line in daemon.ok("image", "referrers", "--json", image).splitlines()]
    assert {each["digest"] for each in listed} == {name.rpartition("@")[2] for name in attached}
    assert {each["annotations"]["by"] for each in listed} == {"me"}
    only = daemon.ok("image", "referrers", "--artifact-type", REPORT, "--format", "name", image)
    assert only == attached[0].rpartition("@")[2]
    daemon.ok("artifact", "pull", "-o", files / "out", attached[0])
    assert (files / "out/sub/data.bin").read_bytes() == (files / "sub/data.bin").read_bytes()


def test_oras_reads_what_we_write_and_we_what_it_writes(daemon: Daemon, registry: str, files: Path) -> None:
    """ORAS's client pulls our artifact and pushes one that we pull."""
    client = oras.client.OrasClient(insecure=True)
    daemon.ok("artifact", "push", "-q", f"{registry}/ours/report:1", "report.json:application/json")
    client.pull(target=f"{registry}/ours/report:1", outdir=str(files / "theirs"))
    assert (files / "theirs/report.json").read_text() == '{"ok": true}'
    client.push(target=f"{registry}/theirs/report:1", files=["report.json"], disable_path_validation=True)
    daemon.ok("artifact", "pull", "-o", files / "ours", f"{registry}/theirs/report:1")
    assert (files / "ours/report.json").read_text() == '{"ok": true}'


def test_names_that_lead_away_are_refused(daemon: Daemon, registry: str, files: Path) -> None:
    """Neither an artifact from elsewhere nor a file of ours gets out of its directory."""
    client = oras.client.OrasClient(insecure=True)
    client.push(
        target=f"{registry}/bad/report:1",
        files=["report.json"],
        annotation_file=str(_annotations(files, "../../escaped.json")),
        disable_path_validation=True,
    )
    done = daemon.trivet("artifact", "pull", "-o", files / "deep/er", f"{registry}/bad/report:1")
    assert done.returncode == 1
    assert b"can't be the name of a file" in done.stderr
    assert not list(files.rglob("escaped.json"))
    daemon.ok("artifact", "push", "-q", f"{registry}/up/report:1", files / "sub/../report.json")
    daemon.ok("artifact", "pull", "-o", files / "up", f"{registry}/up/report:1")
    assert (files / "up/report.json").exists()


def _annotations(place: Path, title: str) -> Path:
    path = place / "annotations.json"
    path.write_text(json.dumps({"report.json": {"org.opencontainers.image.title": title}}))
    return path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("push", "REGISTRY/a:1", "sub"), "sub is no file"),
        (("push", "REGISTRY/a:1", "report.json", "report.json"), "can't have the same name"),
        (("push", "--artifact-type", "nonsense", "REGISTRY/a:1", "report.json"), "'nonsense' is no media type"),
        (("attach", "--artifact-type", REPORT, "REGISTRY/none:1", "report.json"), "none"),
        (("pull", "REGISTRY/none:1"), "none"),
    ],
)
def test_wrong_wishes_are_told(daemon: Daemon, registry: str, files: Path, words: tuple[str, ...], said: str) -> None:
    """What can't be done is said in a sentence."""
    done = daemon.trivet("artifact", *(word.replace("REGISTRY", registry) for word in words))
    assert done.returncode in (1, 2)
    assert said in done.stderr.decode()


@pytest.mark.needs("skopeo")
def test_an_image_and_its_bill_are_found_in_any_registry(daemon: Daemon, registry: str, files: Path) -> None:
    """A build's bill of materials is among the image's referrers once it is pushed, with or without the API."""
    (files / "Dockerfile").write_text("FROM scratch\nCOPY report.json /\n")
    daemon.ok("build", "-q", "--sbom", "-t", f"{registry}/built/app:1", files)
    daemon.ok("push", "-q", f"{registry}/built/app:1")
    kinds = [json.loads(line)["artifact_type"] for line in _json(daemon, f"{registry}/built/app:1")]
    assert kinds == ["application/spdx+json"]
    words = ["skopeo", "inspect", "--tls-verify=false", f"docker://{registry}/built/app:1"]
    assert subprocess.run(words, capture_output=True, check=True).stdout


def _json(daemon: Daemon, reference: str) -> list[str]:
    return daemon.ok("image", "referrers", "--json", reference).splitlines()
