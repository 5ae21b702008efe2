"""The distribution specification, endpoint by endpoint, on our registry and on Debian's docker-registry.

Where Debian's (2.8, of before specification 1.1) does otherwise, `DIFFERENCES` says what it does and why.
"""

from __future__ import annotations

import http.client
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from tests.image.conftest import debian_registry
from tests.image.served import bucket, trivet_registry

from trivet.oci import digest as digests

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"

DIFFERENCES: dict[str, str] = {
    "monolithic post": "takes POST with digest for the beginning of an upload, as the specification allows",
    "out of order": "does not look at Content-Range, 2.8 being older than that rule",
    "chunk size": "does not look at Content-Range",
    "past the end": "answers 416 with the length of the whole blob in Content-Length",
    "upload id": "signs upload ids, and calls one it hasn't signed a bad request",
    "missing blob status": "calls a missing blob a bad request (400)",
    "manifest limit": "has the same limit, but calls it 400",
    "tag delete": "has no deletion of tags",
    "tag order": "lists tags as they come",
    "tag pages": "lists all tags at once",
    "referrers": "is older than the referrers API",
    "digest algorithm": "is older than ?digest-algorithm=",
    "multi-tag": "is older than ?tag=",
    "long name": "answers 500 to a name of 300 letters",
}
"""What Debian's does otherwise, and why; each is proved by the test that names it, which must fail there."""


class Answer(NamedTuple):
    """What a registry said."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The first error's code; the body must be spelled as the specification says."""
        (error, *_) = self.json["errors"]
        assert isinstance(error["message"], str)
        return str(error["code"])


class Door:
    """A registry under test, and one repository of it that nobody else uses."""

    def __init__(self, kind: str, address: str) -> None:
        self.kind = kind
        self.address = address
        self.name = f"team/{uuid.uuid4().hex[:12]}"

    def another(self) -> Door:
        """Another repository of the same registry."""
        return Door(self.kind, self.address)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send a request; keyword arguments are headers, with underscores for hyphens."""
        path = path.removeprefix(f"http://{self.address}")
        path = path if path.startswith("/v2") else f"/v2/{self.name}/{path}"
        connection = http.client.HTTPConnection(self.address, timeout=20)
        try:
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def upload(self, data: bytes) -> dict[str, Any]:
        """Store a blob; return its descriptor."""
        digest = digests.of(data)
        answer = self.ask("PUT", joined(self.begin(), f"digest={digest}"), data)
        assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, digest)
        return {"mediaType": "application/octet-stream", "digest": digest, "size": len(data)}

    def begin(self) -> str:
        """Begin an upload; return where it goes."""
        answer = self.ask("POST", "blobs/uploads/", b"")
        assert answer.status == 202
        return answer.headers["Location"]

    def put(self, document: dict[str, Any] | bytes, reference: str = "", kind: str = "") -> Answer:
        """Store a manifest."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        kind = kind or json.loads(raw)["mediaType"]
        return self.ask("PUT", f"manifests/{reference or digests.of(raw)}", raw, Content_Type=kind)

    def image(self, **more: Any) -> bytes:
        """Upload the blobs of an image; return its manifest, spelled in an odd way."""
        config = {**self.upload(b"{}" + os.urandom(4).hex().encode()), "mediaType": "application/vnd.test.config+json"}
        layer = self.upload(os.urandom(100))
        return json.dumps(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer], **more}, indent=5
        ).encode()


@pytest.fixture(
    scope="module", params=["trivet", "s3", pytest.param("debian", marks=pytest.mark.needs("docker-registry"))]
)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A running registry: which, and its address."""
    with ExitStack() as undo:
        place = tmp_path_factory.mktemp(request.param)
        if request.param == "s3":
            url = undo.enter_context(bucket(place / "moto"))
            yield "s3", undo.enter_context(trivet_registry(place / "root", "--s3", url))
            return
        start = trivet_registry if request.param == "trivet" else debian_registry
        yield request.param, undo.enter_context(start(place))


@pytest.fixture
def door(request: pytest.FixtureRequest, served: tuple[str, str]) -> Door:
    """A repository of one's own in a running registry; a test that `differs` must fail on Debian's."""
    door = Door(*served)
    for mark in request.node.iter_markers("differs"):
        if door.kind == "debian":
            request.applymarker(pytest.mark.xfail(reason=DIFFERENCES[mark.args[0]], strict=True))
    return door


def joined(location: str, query: str) -> str:
    """Add to the query of an upload's location, which is opaque otherwise."""
    return f"{location}{'&' if '?' in location else '?'}{query}"


def received(location: str, door: Door) -> Answer:
    answer = door.ask("GET", location)
    assert answer.status == 204
    return answer


def test_it_says_that_it_is_a_registry(door: Door) -> None:
    """end-1: /v2/ answers 200."""
    assert door.ask("GET", "/v2/").status == 200


def test_blob_in_one_piece(door: Door) -> None:
    """end-4a, 6: POST, then PUT with the whole; it is there then, by HEAD, GET and range, and 404 elsewhere."""
    data = os.urandom(100_000)
    blob = door.upload(data)
    path = f"blobs/{blob['digest']}"
    head, whole = door.ask("HEAD", path), door.ask("GET", path)
    assert (head.status, head.headers["Content-Length"], head.body) == (200, "100000", b"")
    assert (whole.status, whole.body, whole.headers["Docker-Content-Digest"]) == (200, data, blob["digest"])
    part = door.ask("GET", path, Range="bytes=1000-1999")
    assert (part.status, part.body) == (206, data[1000:2000])
    assert part.headers["Content-Range"] == "bytes 1000-1999/100000"
    assert door.ask("GET", path, Range="bytes=99990-").body == data[-10:]
    assert door.ask("HEAD", f"/v2/{door.name}x/{path}").status == 404
    missing = door.ask("GET", f"blobs/{digests.of(b'missing')}")
    assert (missing.status, missing.code) == (404, "BLOB_UNKNOWN")


@pytest.mark.differs("past the end")
def test_range_past_the_end(door: Door) -> None:
    """A range that begins behind the blob can't be satisfied."""
    blob = door.upload(b"12345")
    assert door.ask("GET", f"blobs/{blob['digest']}", Range="bytes=5-").status == 416


@pytest.mark.differs("monolithic post")
def test_blob_in_one_request(door: Door) -> None:
    """end-4b: POST with the digest takes the whole."""
    data = os.urandom(1000)
    answer = door.ask("POST", f"blobs/uploads/?digest={digests.of(data)}", data)
    assert answer.status == 201
    assert door.ask("GET", answer.headers["Location"]).body == data


def test_blob_in_chunks(door: Door) -> None:
    """end-5, 13: chunks in order; the status tells how far it is."""
    data = os.urandom(3000)
    location = door.begin()
    for start in (0, 1000):
        answer = door.ask("PATCH", location, data[start : start + 1000], Content_Range=f"{start}-{start + 999}")
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{start + 999}")
        location = answer.headers["Location"]
    assert received(location, door).headers["Range"] == "0-1999"
    last = door.ask("PUT", joined(location, f"digest={digests.of(data)}"), data[2000:], Content_Range="2000-2999")
    assert last.status == 201
    assert door.ask("GET", last.headers["Location"]).body == data


@pytest.mark.differs("out of order")
def test_chunks_out_of_order(door: Door) -> None:
    """A chunk that doesn't go on where the upload stands is refused and changes nothing."""
    data = os.urandom(3000)
    location = door.ask("PATCH", door.begin(), data[:2000], Content_Range="0-1999").headers["Location"]
    for start, end in ((2500, 3000), (0, 1000), (1999, 3000)):
        answer = door.ask("PATCH", location, data[start:end], Content_Range=f"{start}-{end - 1}")
        assert (answer.status, answer.headers["Range"]) == (416, "0-1999")
    assert received(location, door).headers["Range"] == "0-1999"
    done = door.ask("PUT", joined(location, f"digest={digests.of(data)}"), data[2000:])
    assert door.ask("GET", done.headers["Location"]).body == data


@pytest.mark.differs("chunk size")
def test_a_chunk_is_as_long_as_it_says(door: Door) -> None:
    """Content-Range and Content-Length that contradict are refused."""
    answer = door.ask("PATCH", door.begin(), b"12345", Content_Range="0-9")
    assert (answer.status, answer.code) == (400, "SIZE_INVALID")
    answer = door.ask("PATCH", door.begin(), b"12345", Content_Range="all")
    assert (answer.status, answer.code) == (400, "BLOB_UPLOAD_INVALID")


def test_streamed_upload(door: Door) -> None:
    """A PATCH without Content-Range appends; PUT without body ends it."""
    data = os.urandom(50_000)
    answer = door.ask("PATCH", door.begin(), data)
    assert answer.status == 202
    done = door.ask("PUT", joined(answer.headers["Location"], f"digest={quote(digests.of(data))}"), b"")
    assert done.status == 201


def test_wrong_digest(door: Door) -> None:
    """What isn't what it says is refused, and is not there afterwards."""
    answer = door.ask("PUT", joined(door.begin(), f"digest={digests.of(b'this')}"), b"that")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert door.ask("HEAD", f"blobs/{digests.of(b'this')}").status == 404
    for text in ("", "sha256:12", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:../../../../etc/passwd"):
        answer = door.ask("PUT", joined(door.begin(), f"digest={quote(text)}"), b"x")
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


@pytest.mark.differs("upload id")
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("key", ["0" * 32, "..", "%2e%2e%2fx", "a" * 3000])
def test_uploads_that_never_were(door: Door, method: str, key: str) -> None:
    """An unknown upload is named so, and a malformed id is no path."""
    answer = door.ask(method, f"blobs/uploads/{key}", b"")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN" if "2f" in key else "BLOB_UPLOAD_UNKNOWN")


def test_uploads_that_are_not_there(door: Door) -> None:
    """A cancelled upload is gone; another repository can't touch one."""
    location = door.begin()
    foreign = door.ask("PATCH", location.replace(door.name, f"{door.name}x"), b"stolen")
    assert foreign.status >= 400
    assert door.ask("DELETE", location).status == 204
    assert door.ask("GET", location).status == 404


def test_sha512(door: Door) -> None:
    """A blob may be named by another algorithm than the one it was hashed with on the way."""
    data = os.urandom(5000)
    digest = digests.of(data, "sha512")
    first = door.ask("PATCH", door.begin(), data[:2000])
    assert door.ask("PUT", joined(first.headers["Location"], f"digest={digest}"), data[2000:]).status == 201
    assert door.ask("GET", f"blobs/{digest}").body == data


@pytest.mark.differs("digest algorithm")
def test_digest_algorithm_of_an_upload(door: Door) -> None:
    """POST names the algorithm the digest will have; one that nobody knows is refused at once."""
    data = os.urandom(100)
    for algorithm in ("sha256", "sha512"):
        answer = door.ask("POST", f"blobs/uploads/?digest-algorithm={algorithm}", b"")
        digest = digests.of(data, algorithm)
        assert answer.status == 202
        assert door.ask("PUT", joined(answer.headers["Location"], f"digest={digest}"), data).status == 201
        assert door.ask("GET", f"blobs/{digest}").body == data
    answer = door.ask("POST", "blobs/uploads/?digest-algorithm=md5", b"")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_mount(door: Door) -> None:
    """end-11: a blob comes from another repository without being sent; one that isn't there begins an upload."""
    blob = door.upload(os.urandom(300))
    other = door.another()
    mounted = other.ask("POST", f"blobs/uploads/?mount={blob['digest']}&from={door.name}", b"")
    assert mounted.status == 201
    assert other.ask("GET", mounted.headers["Location"]).status == 200
    absent = other.ask("POST", f"blobs/uploads/?mount={digests.of(b'none')}&from={door.name}", b"")
    assert absent.status == 202
    third = door.another()
    assert third.ask("POST", f"blobs/uploads/?mount={blob['digest']}&from=no/such", b"").status == 202
    assert third.ask("HEAD", f"blobs/{blob['digest']}").status == 404


def test_blob_delete(door: Door) -> None:
    """end-10: a deleted blob is gone from its repository only."""
    blob = door.upload(os.urandom(300))
    other = door.another()
    assert other.ask("POST", f"blobs/uploads/?mount={blob['digest']}&from={door.name}", b"").status == 201
    assert door.ask("DELETE", f"blobs/{blob['digest']}").status == 202
    assert door.ask("HEAD", f"blobs/{blob['digest']}").status == 404
    assert other.ask("HEAD", f"blobs/{blob['digest']}").status == 200
    assert door.ask("DELETE", f"blobs/{digests.of(b'never')}").status == 404


def test_manifest(door: Door) -> None:
    """end-3, 7: a manifest comes back byte for byte, by tag and digest, with its type; HEAD agrees."""
    raw = door.image()
    stored = door.put(raw, "v1")
    assert (stored.status, stored.headers["Docker-Content-Digest"]) == (201, digests.of(raw))
    for reference in ("v1", digests.of(raw)):
        got = door.ask("GET", f"manifests/{reference}", Accept=MANIFEST)
        assert (got.status, got.body, got.headers["Content-Type"]) == (200, raw, MANIFEST)
        assert got.headers["Docker-Content-Digest"] == digests.of(raw)
        head = door.ask("HEAD", f"manifests/{reference}", Accept=MANIFEST)
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(raw)))
        assert head.headers["Docker-Content-Digest"] == digests.of(raw)
    for reference in ("v2", digests.of(b"none")):
        missing = door.ask("GET", f"manifests/{reference}")
        assert (missing.status, missing.code) == (404, "MANIFEST_UNKNOWN")
        assert door.ask("HEAD", f"manifests/{reference}").status == 404


def test_index(door: Door) -> None:
    """An index is taken when its manifests are there."""
    raw = door.image()
    entry = {"mediaType": MANIFEST, "digest": digests.of(raw), "size": len(raw)}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    early = door.put(index, "many")
    assert early.code == "MANIFEST_BLOB_UNKNOWN"
    assert door.put(raw).status == 201
    assert door.put(index, "many").status == 201
    assert door.ask("GET", "manifests/many", Accept=INDEX).json == index


def test_bad_manifests(door: Door) -> None:
    """Missing blobs, a wrong digest, no JSON, two things at once: each refused with its code, none is stored."""
    raw = door.image()
    missing = raw.replace(json.loads(raw)["layers"][0]["digest"].encode(), digests.of(b"gone").encode())
    answer = door.put(missing, "v1")
    assert answer.code == "MANIFEST_BLOB_UNKNOWN"
    answer = door.put(raw, digests.of(b"another"))
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    answer = door.put(b"{no json", "v1", MANIFEST)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert door.ask("GET", "manifests/v1").status == 404


@pytest.mark.differs("missing blob status")
def test_a_manifest_without_its_blobs_finds_nothing(door: Door) -> None:
    """Something missing is 404, in a manifest too."""
    raw = door.image()
    assert (
        door.put(raw.replace(json.loads(raw)["layers"][0]["digest"].encode(), digests.of(b"").encode())).status == 404
    )


def test_ambiguous_manifests(door: Door) -> None:
    """What could be read as two types, or is called another than it is, is refused (CVE-2021-41190)."""
    raw = door.image()
    both = raw[:-1].rstrip().removesuffix(b"}") + b',"manifests":[]}'
    for document, kind in ((raw, INDEX), (both, MANIFEST)):
        answer = door.put(document, "v1", kind)
        assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


@pytest.mark.differs("manifest limit")
@pytest.mark.parametrize("chunked", [False, True])
def test_manifest_too_large(door: Door, chunked: bool) -> None:
    """Over 4 MiB is too much, whether or not the client says how much it is going to send."""
    raw = b"{" + b" " * (5 << 20) + b"}"
    connection = http.client.HTTPConnection(door.address, timeout=3)
    pieces = (raw[start : start + 65536] for start in range(0, len(raw), 65536))
    connection.putrequest("PUT", f"/v2/{door.name}/manifests/v1")
    connection.putheader("Content-Type", MANIFEST)
    connection.putheader(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(raw)))))
    connection.endheaders()
    try:
        if chunked:
            for piece in pieces:
                connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    except ConnectionError:
        pass  # it has said why
    assert connection.getresponse().status == 413
    connection.close()


def test_manifest_delete(door: Door) -> None:
    """end-9: by digest a manifest goes with all its names."""
    raw = door.image()
    for tag in ("a", "b"):
        assert door.put(raw, tag).status == 201
    assert door.ask("DELETE", f"manifests/{digests.of(raw)}").status == 202
    for reference in ("a", "b", digests.of(raw)):
        assert door.ask("GET", f"manifests/{reference}").status == 404
    assert door.ask("DELETE", f"manifests/{digests.of(raw)}").status == 404


@pytest.mark.differs("tag delete")
def test_tag_delete(door: Door) -> None:
    """end-9: by tag only the name goes."""
    raw = door.image()
    for tag in ("a", "b"):
        assert door.put(raw, tag).status == 201
    assert door.ask("DELETE", "manifests/a").status == 202
    assert door.ask("GET", "tags/list").json["tags"] == ["b"]
    assert door.ask("GET", f"manifests/{digests.of(raw)}").status == 200
    assert door.ask("DELETE", "manifests/a").status == 404


TAGS = ["Zeta", "alpha", "beta", "v10", "v2"]  # in ASCII's order


@pytest.fixture
def tagged(door: Door) -> Door:
    """A repository with some tags."""
    raw = door.image()
    for tag in ("beta", "alpha", "v10", "v2", "Zeta"):
        assert door.put(raw, tag).status == 201
    return door


def test_tags(tagged: Door) -> None:
    """end-8: all tags, without a Link; of an unknown repository none."""
    answer = tagged.ask("GET", "tags/list?n=100")
    assert (answer.json["name"], sorted(answer.json["tags"]), answer.headers["Link"]) == (tagged.name, TAGS, None)
    unknown = tagged.ask("GET", f"/v2/{tagged.name}x/tags/list")
    assert (unknown.status, unknown.code) == (404, "NAME_UNKNOWN")


@pytest.mark.differs("tag order")
def test_tags_are_sorted(tagged: Door) -> None:
    """Tags come in lexical order."""
    assert tagged.ask("GET", "tags/list").json["tags"] == TAGS


@pytest.mark.differs("tag pages")
def test_tags_in_pages(tagged: Door) -> None:
    """n and last cut pages; Link leads to the next one and is missing on the last."""
    seen: list[str] = []
    path = "tags/list?n=2"
    while path:
        page = tagged.ask("GET", path)
        assert len(page.json["tags"]) <= 2
        seen += page.json["tags"]
        path = page.headers.get("Link", "").removesuffix('>; rel="next"').removeprefix("<")
    assert seen == TAGS
    assert tagged.ask("GET", "tags/list?last=beta").json["tags"] == ["v10", "v2"]
    assert tagged.ask("GET", "tags/list?n=0").json["tags"] == []
    assert tagged.ask("GET", "tags/list?n=999999999999").json["tags"] == TAGS
    assert tagged.ask("GET", "tags/list?n=-1").status == 400


def test_catalog(door: Door) -> None:
    """The catalog lists repositories that have something, in pages too."""
    assert door.put(door.image(), "v1").status == 201
    assert door.name in door.ask("GET", "/v2/_catalog?n=1000").json["repositories"]
    page = door.ask("GET", f"/v2/_catalog?n=1&last={quote(door.name[:-1], safe='')}")
    assert page.json["repositories"] == [door.name]


@pytest.mark.differs("referrers")
def test_referrers(door: Door) -> None:
    """end-12: what names a subject is listed with its type and annotations, filtered or not; OCI-Subject says so."""
    raw = door.image()
    subject = {"mediaType": MANIFEST, "digest": digests.of(raw), "size": len(raw)}
    signature = door.image(subject=subject, artifactType="application/vnd.test.signature", annotations={"by": "me"})
    bill = door.image(subject=subject)
    for document in (signature, bill, raw):  # the subject may come last
        answer = door.put(document)
        assert answer.status == 201
        assert answer.headers.get("OCI-Subject", "") == ("" if document is raw else subject["digest"])
    path = f"referrers/{subject['digest']}"
    listed = door.ask("GET", path)
    assert (listed.status, listed.headers["Content-Type"]) == (200, INDEX)
    found = {each["digest"]: each for each in listed.json["manifests"]}
    assert found.keys() == {digests.of(signature), digests.of(bill)}
    assert found[digests.of(signature)]["artifactType"] == "application/vnd.test.signature"
    assert found[digests.of(signature)]["annotations"] == {"by": "me"}
    assert found[digests.of(bill)]["artifactType"] == "application/vnd.test.config+json"
    filtered = door.ask("GET", f"{path}?artifactType=application/vnd.test.signature")
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
    assert [each["digest"] for each in filtered.json["manifests"]] == [digests.of(signature)]
    assert door.ask("DELETE", f"manifests/{digests.of(bill)}").status == 202
    assert len(door.ask("GET", path).json["manifests"]) == 1
    assert door.ask("GET", f"referrers/{digests.of(b'nothing')}").json["manifests"] == []
    assert door.ask("GET", "referrers/sha256:12").code == "DIGEST_INVALID"


@pytest.mark.differs("referrers")
def test_referrers_noted_under_a_tag(door: Door) -> None:
    """What a client without the referrers API noted under the fall-back tag is listed too, once."""
    raw, old = door.image(), door.image()
    assert door.put(raw).status == door.put(old).status == 201
    entry = {"mediaType": MANIFEST, "digest": digests.of(old), "size": len(old)}
    assert (
        door.put(
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, digests.of(raw).replace(":", "-")
        ).status
        == 201
    )
    listed = door.ask("GET", f"referrers/{digests.of(raw)}").json["manifests"]
    assert [each["digest"] for each in listed] == [digests.of(old)]


@pytest.mark.differs("multi-tag")
def test_several_tags_at_once(door: Door) -> None:
    """A manifest put under its digest takes the tags of the query."""
    raw = door.image()
    answer = door.put(raw, f"{digests.of(raw)}?tag=a&tag=b")
    assert (answer.status, answer.headers.get_all("OCI-Tag")) == (201, ["a", "b"])
    assert door.ask("GET", "tags/list").json["tags"] == ["a", "b"]


@pytest.mark.parametrize(
    "name", ["UPPER", "a//b", "..", "a/../b", "%2e%2e/a", "a%2f..%2fb", "-a", "a%00b", "_catalog", "a/_b"]
)
def test_names_by_the_grammar(door: Door, name: str) -> None:
    """A name outside the grammar never gets as far as a path; Debian's redirects some to what it takes them for."""
    answer = door.ask("POST", f"/v2/{name}/blobs/uploads/", b"")
    if door.kind == "trivet":
        assert (answer.status, answer.code) == (400, "NAME_INVALID")
    assert answer.status in (301, 307, 308, 400, 404, 405)


@pytest.mark.differs("long name")
def test_names_have_an_end(door: Door) -> None:
    """A name has at most 255 characters."""
    answer = door.ask("POST", f"/v2/{'a' * 300}/blobs/uploads/", b"")
    assert (answer.status, answer.code) == (400, "NAME_INVALID")


def test_methods_that_are_not_there(door: Door) -> None:
    """A method a path doesn't know is refused as unsupported."""
    answer = door.ask("POST", "tags/list", b"")
    assert answer.status == 405
