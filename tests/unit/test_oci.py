"""References, digests, platforms, manifests and configurations: what is understood, what is refused."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.base.error import InvalidArgument, TrivetError
from trivet.oci import config, digest, layer, manifest, platform, reference
from trivet.oci.descriptor import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from trivet.oci.digest import MalformedDigest
from trivet.oci.manifest import Index, MalformedManifest, Manifest, UnsupportedManifest
from trivet.oci.platform import Platform
from trivet.oci.reference import MalformedReference

SHA256 = "sha256:" + "ab" * 32
SHA512 = "sha512:" + "cd" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:bookworm", "docker.io/library/debian:bookworm", "debian:bookworm"),
        ("index.docker.io/library/debian", "docker.io/library/debian", "debian"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("trivet/web:1.2", "docker.io/trivet/web:1.2", "trivet/web:1.2"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
        ("Registry/app", "Registry/app", "Registry/app"),
        (f"example.org/app@{SHA256}", f"example.org/app@{SHA256}", f"example.org/app@{SHA256}"),
        (f"app:1@{SHA512}", f"docker.io/library/app:1@{SHA512}", f"app:1@{SHA512}"),
        ("docker.io/a.b/c", "docker.io/a.b/c", "docker.io/a.b/c"),
        ("docker.io/localhost/c", "docker.io/localhost/c", "docker.io/localhost/c"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("a__b/c-d--e.f", "docker.io/a__b/c-d--e.f", "a__b/c-d--e.f"),
    ],
)
def test_references_as_people_write_them(text: str, full: str, familiar: str) -> None:
    """The domain and name space people leave out are filled in, and left out again when shown."""
    parsed = reference.parse(text)
    assert (str(parsed), parsed.familiar) == (full, familiar)
    assert reference.parse(full) == reference.parse(familiar) == parsed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the name is empty"),
        (":tag", "the name is empty"),
        ("Debian", "must be lower case"),
        ("debian:", "is not a tag"),
        ("debian:a b", "is not a tag"),
        ("debian:" + "x" * 129, "is not a tag"),
        ("debian@sha256:123", "is not a digest"),
        ("debian@", "is not a digest"),
        (f"debian@sha1:{'a' * 40}", "is not a digest"),
        ("../etc/passwd", "is not a registry's host name"),
        ("a//b", "may hold only"),
        ("-a", "may hold only"),
        ("a..b", "may hold only"),
        ("a/b/", "may hold only"),
        ("a\nb", "may hold only"),
        ("exa_mple.org:80/a", "is not a registry's host name"),
        ("host:port/a", "is not a registry's host name"),
        ("a" * 300, "longer than 255"),
        ("a" * 3000, "longer than 1000"),
        ("ab" * 32, "an image's id, not a name"),
        ("bootstrap:debian/bookworm", "is not a registry's host name"),
    ],
)
def test_malformed_references_say_what_is_wrong(text: str, problem: str) -> None:
    """A malformed reference is an invalid argument that names the part."""
    with pytest.raises(MalformedReference, match=problem) as caught:
        reference.parse(text)
    assert isinstance(caught.value, InvalidArgument)


COMPONENT = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
DOMAIN = st.from_regex(r"[a-z]{1,5}(\.[a-z0-9]{1,5}){1,2}(:[0-9]{1,5})?", fullmatch=True) | st.just("localhost")
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(DOMAIN, st.lists(COMPONENT, min_size=1, max_size=4), st.just("") | TAG, st.sampled_from(["", SHA256, SHA512]))
def test_references_round_trip(domain: str, path: list[str], tag: str, pin: str) -> None:
    """Every well-formed reference comes apart into what it was made of."""
    text = f"{domain}/{'/'.join(path)}" + (f":{tag}" if tag else "") + (f"@{pin}" if pin else "")
    parsed = reference.parse(text)
    assert (parsed.domain, parsed.path, parsed.tag, parsed.digest) == (domain, "/".join(path), tag, pin)
    assert str(parsed) == text
    assert reference.parse(parsed.familiar) == parsed


@given(st.text(max_size=60) | st.text(alphabet="ab./:@-_A\n\0 %", max_size=30))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    """No text gets through that could be anything but a name in a path or URL."""
    try:
        parsed = reference.parse(text)
    except MalformedReference:
        return
    assert ".." not in str(parsed).split("/")
    assert not set(str(parsed)) & set("\n\0 %?#\\")
    assert reference.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text", ["", "sha256:", SHA256 + "0", SHA256.upper(), SHA256 + "\n", "blake3:" + "a" * 64, "../x"]
)
def test_digests_are_checked_before_use(text: str) -> None:
    """What is no digest never becomes a path, in a function or in a record."""
    with pytest.raises(MalformedDigest):
        digest.check(text)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, digest.Digest)


def test_digests_of_both_algorithms() -> None:
    """sha256 and sha512 are computed and taken apart."""
    assert digest.of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert len(digest.of(b"", "sha512")) == 7 + 128
    assert digest.split(SHA512) == ("sha512", "cd" * 64)


def test_chain_ids() -> None:
    """The first chain id is the diff id, the next ones hash the chain so far and the diff id."""
    first, second = digest.of(b"1"), digest.of(b"2")
    assert layer.chain_ids([first, second]) == [first, digest.of(f"{first} {second}".encode())]
    assert layer.chain_ids([]) == []


@pytest.mark.parametrize(
    ("wanted", "offered", "fits"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("x86_64", "linux/amd64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm/v7", "linux/arm/v6", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("armhf", "linux/arm/v7", True),
        ("linux/amd64", "windows/amd64", False),
        ("linux/amd64", "linux/arm64", False),
        ("linux/amd64", "linux/amd64/v3", False),
    ],
)
def test_platforms_match(wanted: str, offered: str, fits: bool) -> None:
    """Spellings and default variants are the same platform; an older ARM variant runs on a newer one."""
    assert platform.matches(platform.parse(wanted), platform.parse(offered)) is fits


def test_the_best_variant_is_chosen() -> None:
    """From several variants that fit, the newest one; unknown platforms never."""
    offers = [
        (Platform(os="linux", architecture="arm", variant="v5"), "v5"),
        (Platform(os="linux", architecture="arm", variant="v7"), "v7"),
        (Platform(os="unknown", architecture="unknown"), "attestation"),
        (None, "nothing"),
    ]
    assert platform.choose(platform.parse("linux/arm/v7"), offers) == "v7"
    assert platform.choose(platform.parse("linux/arm/v6"), offers) == "v5"
    assert platform.choose(platform.parse("linux/s390x"), offers) is None


@pytest.mark.parametrize("text", ["", "a/b/c/d", "linux/", "linux/a b", "/amd64"])
def test_malformed_platforms(text: str) -> None:
    """A malformed platform is an invalid argument."""
    with pytest.raises(InvalidArgument, match="malformed platform"):
        platform.parse(text)


CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": SHA256, "size": 2}
IMAGE = {"schemaVersion": 2, "config": CONFIG, "layers": [CONFIG]}
INDEX = {"schemaVersion": 2, "manifests": [{**CONFIG, "platform": {"os": "linux", "architecture": "amd64"}}]}


@pytest.mark.parametrize(
    ("document", "told", "kind"),
    [
        (IMAGE, "", Manifest),
        (IMAGE, OCI_MANIFEST, Manifest),
        (IMAGE, OCI_MANIFEST + "; charset=utf-8", Manifest),
        ({**IMAGE, "mediaType": DOCKER_MANIFEST}, DOCKER_MANIFEST, Manifest),
        ({**IMAGE, "artifactType": "a/b", "subject": CONFIG, "annotations": {"k": "v"}, "unknown": 1}, "", Manifest),
        (INDEX, OCI_INDEX, Index),
        ({**INDEX, "mediaType": DOCKER_INDEX}, "", Index),
    ],
)
def test_manifests_of_every_kind(document: object, told: str, kind: type) -> None:
    """OCI and Docker manifests and indexes are told apart by what they are made of."""
    assert isinstance(manifest.parse(json.dumps(document).encode(), media_type=told, subject="x"), kind)


@pytest.mark.parametrize(
    ("document", "told", "problem"),
    [
        ({**IMAGE, "manifests": []}, "", "both an index and a manifest"),
        ({"schemaVersion": 2}, "", "neither an index nor a manifest"),
        (IMAGE, OCI_INDEX, "has the structure of another type"),
        ({**INDEX, "mediaType": OCI_MANIFEST}, "", "has the structure of another type"),
        ({**IMAGE, "mediaType": OCI_MANIFEST}, DOCKER_MANIFEST, "calls itself"),
        ({**IMAGE, "config": {**CONFIG, "digest": "../../x"}}, "", r"config\.digest"),
        ({**IMAGE, "layers": [{**CONFIG, "size": -1}]}, "", r"layers\[0\]\.size"),
        ({**IMAGE, "layers": [CONFIG] * 501}, "", "501 layers"),
        ({**IMAGE, "schemaVersion": 3}, "", "schemaVersion"),
        ([], "", "not a JSON object"),
    ],
)
def test_malformed_manifests(document: object, told: str, problem: str) -> None:
    """A manifest that contradicts itself or its specification is refused with the place of the mistake."""
    with pytest.raises(MalformedManifest, match=problem):
        manifest.parse(json.dumps(document).encode(), media_type=told, subject="x")


@pytest.mark.parametrize(
    "document",
    [{"schemaVersion": 1, "fsLayers": []}, {**IMAGE, "mediaType": "text/html"}, {**IMAGE, "mediaType": ["x"]}],
)
def test_unsupported_manifests(document: object) -> None:
    """Docker's schema 1 and foreign types are named as unsupported."""
    with pytest.raises(UnsupportedManifest):
        manifest.parse(json.dumps(document).encode(), subject="x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "rootfs"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON | st.binary(max_size=40))
def test_any_document_is_understood_or_refused(document: object) -> None:
    """Whatever a registry sends, parsing gives a record or one of our errors."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    for parse in (manifest.parse, config.parse):
        try:
            parse(raw, subject="x")
        except TrivetError:
            pass
    with pytest.raises(TrivetError):
        manifest.parse(b"[" * 100_000, subject="x")


def test_configuration_as_docker_writes_it() -> None:
    """Docker's nulls and additional fields are accepted; durations, volumes and ports are read."""
    document = {
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
        "container": "abc",
        "docker_version": "20.10",
        "config": {
            "User": "app:app",
            "Env": ["A=b"],
            "Cmd": None,
            "Entrypoint": ["/bin/app"],
            "WorkingDir": "/srv",
            "Volumes": {"/data": {}},
            "ExposedPorts": {"80/tcp": {}},
            "Labels": None,
            "OnBuild": ["RUN true"],
            "Shell": ["/bin/bash", "-c"],
            "StopSignal": "SIGQUIT",
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000_000, "Retries": 3},
            "Tty": False,
        },
        "rootfs": {"type": "layers", "diff_ids": [SHA256]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "ENV", "empty_layer": True}],
    }
    image = config.parse(json.dumps(document).encode(), subject="x")
    assert image.defaults.entrypoint == ("/bin/app",)
    assert image.defaults.cmd is None
    assert list(image.defaults.volumes or {}) == ["/data"]
    assert image.defaults.healthcheck is not None
    assert image.defaults.healthcheck.interval == 5_000_000_000
    assert str(image.platform) == "linux/arm64/v8"
    assert config.parse(config.encode(image), subject="x") == image


@pytest.mark.parametrize(
    "text",
    ['{"os":"linux"}', '{"architecture":"a","os":"l","rootfs":{"type":"layers","diff_ids":["x"]}}', "nonsense", "\xff"],
)
def test_malformed_configurations(text: str) -> None:
    """A configuration that isn't one is corrupt, with the place of the mistake."""
    with pytest.raises(config.MalformedConfig, match="configuration of x is malformed"):
        config.parse(text.encode("latin-1"), subject="x")
