"""Which images may be used: signatures as cosign makes them with a key, judged without a network but the registry."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.image.conftest import debian_registry, small_tar
from tests.image.served import trivet_registry

from trivet.base.error import Denied, InvalidArgument, Unsupported
from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageNotFound, ImageRecord
from trivet.engine.image.trust import Trust

MakeImages = Callable[[str], Images]
OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"


def make_key(directory: Path, name: str) -> Path:
    """Make an ECDSA P-256 key as `cosign generate-key-pair` does, `name.key` and `name.pub`."""
    private, public = directory / f"{name}.key", directory / f"{name}.pub"
    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(["openssl", "genpkey", *curve, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private


def put(url: str, body: bytes, kind: str) -> None:
    """Send a body with PUT."""
    request = urllib.request.Request(url, data=body, method="PUT", headers={"Content-Type": kind})
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).close()


def upload(registry: str, repository: str, body: bytes) -> dict[str, Any]:
    """Upload a blob; return its descriptor without a type."""
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    request = urllib.request.Request(f"http://{registry}/v2/{repository}/blobs/uploads/", method="POST")
    place = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).headers["Location"]
    place = place if "://" in place else f"http://{registry}{place}"
    put(f"{place}{'&' if '?' in place else '?'}digest={digest}", body, "application/octet-stream")
    return {"digest": digest, "size": len(body)}


def sign(registry: str, digest: str, key: Path, *, name: str = "", referrer: int = 0) -> None:
    """Sign an image of repository test/base as cosign does; as a `referrer` of that size, or at the tag."""
    critical = {
        "identity": {"docker-reference": name or f"{registry}/test/base"},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    text = json.dumps({"critical": critical, "optional": None}).encode()
    command = ["openssl", "dgst", "-sha256", "-sign", str(key)]
    made = base64.b64encode(subprocess.run(command, input=text, capture_output=True, check=True).stdout).decode()
    layer = upload(registry, "test/base", text)
    layer |= {"mediaType": PAYLOAD, "annotations": {"dev.cosignproject.cosign/signature": made}}
    config = upload(registry, "test/base", b"{}") | {"mediaType": "application/vnd.oci.image.config.v1+json"}
    manifest: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI, "config": config, "layers": [layer]}
    target = digest.replace(":", "-") + ".sig"
    if referrer:
        manifest["subject"] = {"mediaType": OCI, "digest": digest, "size": referrer}
        manifest["artifactType"] = "application/vnd.dev.cosign.artifact.sig.v1+json"
        target = "sha256:" + hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    place = f"http://{registry}/v2/test/base/manifests/"
    put(place + target, json.dumps(manifest).encode(), OCI)
    if referrer:  # for registries that know no referrers: the tag that stands in for them
        entry = {"mediaType": OCI, "digest": target, "size": len(json.dumps(manifest))}
        entry["artifactType"] = manifest["artifactType"]
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
        put(place + digest.replace(":", "-"), json.dumps(index).encode(), INDEX)


@pytest.fixture
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a registry: ours, or another one that a test asks for."""
    start = debian_registry if getattr(request, "param", "") == "debian" else trivet_registry
    with start(tmp_path / "served") as address:
        yield address


class Setting:
    """An unsigned image in a registry, keys, and a second engine with a policy."""

    def __init__(self, registry: str, origin: Images, engine: Images, directory: Path) -> None:
        origin.tag("test/base:1", f"{registry}/test/base:1")
        self.name = f"{registry}/test/base:1"
        self.registry = registry
        self.digest = asyncio.run(origin.push(self.name))
        self.size = origin.content.size(self.digest)
        self.key, self.other = make_key(directory, "good"), make_key(directory, "other")
        self.file = directory / "policy.json"
        self.engine = engine
        engine.trust = Trust(engine.records, self.file)
        self.demand()

    def demand(self, identity: str = "matchRepository", **requirement: object) -> None:
        """Write a policy: everything is rejected but what the key signed."""
        asked: dict[str, object] = {"type": "sigstoreSigned", "keyPath": str(self.file.with_name("good.pub"))}
        asked |= {"signedIdentity": {"type": identity}, **requirement}
        scopes = {"docker": {self.registry: [asked]}}
        self.file.write_text(json.dumps({"default": [{"type": "reject"}], "transports": scopes}))

    def pull(self, reference: str = "") -> ImageRecord:
        """Pull the image."""
        return asyncio.run(self.engine.pull(reference or self.name))


@pytest.fixture
def setting(registry: str, images: Images, image: ImageRecord, make_images: MakeImages, tmp_path: Path) -> Setting:
    """See `Setting`."""
    return Setting(registry, images, make_images("second"), tmp_path)


@pytest.mark.parametrize(
    "registry", ["trivet", pytest.param("debian", marks=pytest.mark.needs("docker-registry"))], indirect=True
)
@pytest.mark.parametrize("form", ["tag", "referrer"])
def test_a_signed_image_is_pulled_and_used(setting: Setting, form: str) -> None:
    """A signature at cosign's tag or among the referrers lets an image in, also when asked for by digest or id."""
    sign(setting.registry, setting.digest, setting.key, referrer=setting.size if form == "referrer" else 0)
    record = setting.pull()
    assert setting.engine.usable(setting.name).id == record.id
    assert setting.engine.usable(record.id).id == record.id
    setting.pull(f"{setting.registry}/test/base@{setting.digest}")


def test_an_unsigned_image_is_refused(setting: Setting) -> None:
    """Without a signature nothing is recorded, and the sentence names image, policy and reason."""
    with pytest.raises(Denied, match=r"image .*test/base:1 is refused by policy .*: it has no signature"):
        setting.pull()
    with pytest.raises(ImageNotFound):
        setting.engine.find(setting.name)


@pytest.mark.parametrize("wrong", ["key", "digest", "name"])
def test_a_wrong_signature_is_refused(setting: Setting, wrong: str) -> None:
    """A signature of another key, for another image or for another name is none."""
    signed = {"digest": "sha256:" + "0" * 64}
    key = setting.other if wrong == "key" else setting.key
    target = signed["digest"] if wrong == "digest" else setting.digest
    sign(setting.registry, target, key, name=f"{setting.registry}/other" if wrong == "name" else "")
    if wrong == "digest":  # moved to where the image's own would be
        where = f"http://{setting.registry}/v2/test/base/manifests/"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        ask = urllib.request.Request(where + target.replace(":", "-") + ".sig", headers={"Accept": OCI})
        put(where + setting.digest.replace(":", "-") + ".sig", opener.open(ask).read(), OCI)
    reason = {"key": "not made with the key", "digest": "is for sha256:0000", "name": "is for the name"}[wrong]
    with pytest.raises(Denied, match=reason):
        setting.pull()


def test_the_policy_of_the_moment_counts(setting: Setting) -> None:
    """What was pulled before there was a policy is refused, and so is what a changed key didn't sign."""
    policy, setting.engine.trust = setting.engine.trust, Trust(setting.engine.records)
    record = setting.pull()
    setting.engine.trust = policy
    for asked in (setting.name, record.id):
        with pytest.raises(Denied, match="no signature"):
            setting.engine.usable(asked)
    sign(setting.registry, setting.digest, setting.key)
    setting.pull()
    setting.engine.usable(setting.name)
    setting.demand(keyPath=str(setting.file.with_name("other.pub")))
    with pytest.raises(Denied, match="not made with the key"):
        setting.engine.usable(setting.name)
    setting.demand()
    setting.engine.usable(setting.name)


def test_a_tag_doesnt_make_an_image_another(setting: Setting) -> None:
    """An image that was accepted for one name isn't for a second one, where that asks for its own signature."""
    sign(setting.registry, setting.digest, setting.key)
    setting.pull()
    setting.engine.tag(setting.name, f"{setting.registry}/other:1")
    with pytest.raises(Denied, match="for the name"):
        setting.engine.usable(f"{setting.registry}/other:1")


def test_cosigns_names_have_no_tag(setting: Setting) -> None:
    """The stricter identity of containers-policy.json's default asks for the tag too."""
    setting.demand("matchRepoDigestOrExact")
    sign(setting.registry, setting.digest, setting.key)
    with pytest.raises(Denied, match="for the name"):
        setting.pull()
    sign(setting.registry, setting.digest, setting.key, name=setting.name)
    setting.pull()


def test_archives_prove_nothing(setting: Setting, images: Images) -> None:
    """Archives are loaded only where the policy accepts them; what is made here is used."""
    buffer = io.BytesIO()
    images.save(["test/base:1"], buffer)
    with pytest.raises(Denied, match="docker-archive archives are not accepted"):
        setting.engine.load(io.BytesIO(buffer.getvalue()))
    setting.engine.import_(io.BytesIO(small_tar(own=b"1")), "mine:1")
    setting.engine.usable("mine:1")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "it is not JSON: input data was truncated"),
        ("{}", "default"),
        ('{"default": []}', "default has an empty list"),
        (
            '{"default": [{"type": "reject"}], "transports": {"docker": {"a.b/c": [{"type": "no"}]}}}',
            "docker a.b/c: req",
        ),
        ('{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x"}]}', "keyType|signedBy"),
        ('{"default": [{"type": "sigstoreSigned"}]}', "needs a keyPath"),
        ('{"default": [{"type": "sigstoreSigned", "keyPath": "/x"}]}', "cannot use the policy's key"),
        (None, "no such file"),
    ],
)
def test_a_policy_that_isnt_understood_lets_nothing_in(setting: Setting, text: str | None, problem: str) -> None:
    """A broken, unknown or missing policy or key refuses every image."""
    sign(setting.registry, setting.digest, setting.key)
    setting.file.unlink()
    if text is not None:
        setting.file.write_text(text)
    with pytest.raises((InvalidArgument, Unsupported), match=problem):
        setting.pull()
