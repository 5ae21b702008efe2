"""Our registry as a process: what it keeps, tidies, refuses, and how it survives."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.image.conftest import small_tar
from tests.image.relay import Relay
from tests.image.served import trivet_registry

from trivet.base.error import InvalidArgument
from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageRecord
from trivet.oci import digest as digests
from trivet.oci import reference as references
from trivet.registry import certificate
from trivet.registry.error import RegistryUnavailable
from trivet.registry.server import collect, upload
from trivet.registry.server.error import Refusal
from trivet.registry.server.repository import Repositories
from trivet.registry.server.route import Resource, parse
from trivet.registry.server.upload import Uploads
from trivet.registry.transport import Transport
from trivet.store.content import ContentStore
from trivet.store.record import Records

TRIVET = Path(sys.executable).with_name("trivet")


def blobs(root: Path) -> set[str]:
    """Name the blobs in a registry's store."""
    return {f"sha256:{path.name}" for path in (root / "content/blobs/sha256").iterdir()}


def eventually(true: Callable[[], bool], what: str) -> None:
    """Wait up to ten seconds."""
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def ask(address: str, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    """Send a request; tell status and Location."""
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers.get("Location", "")


def test_an_upload_is_resumed_at_the_byte(images: Images, tmp_path: Path) -> None:
    """After a cut the rest is sent, not the whole: what crosses the wire is hardly more than the image."""
    record = images.import_(io.BytesIO(small_tar(data=os.urandom(24 << 20))), "big:1")

    async def run(registry: str) -> int:
        relay = Relay(registry, 16 << 20)
        async with relay.running() as address:
            images.tag("big:1", f"{address}/app:1")
            assert await images.push(f"{address}/app:1") == record.digest
        assert relay.cuts == 0
        return relay.sent

    with trivet_registry(tmp_path / "served") as registry:
        assert asyncio.run(run(registry)) < record.size + (5 << 20)


def test_garbage_goes_while_it_works(images: Images, image: ImageRecord, tmp_path: Path) -> None:
    """What no manifest reaches is collected without a pause in service; images stay, deleted ones go."""
    root = tmp_path / "served"
    with trivet_registry(root, "--collect-every", "1s", "--grace", "1s") as registry:
        images.tag("test/base:1", f"{registry}/app:1")
        digest = asyncio.run(images.push(f"{registry}/app:1"))
        _, location = ask(registry, "POST", "/v2/app/blobs/uploads/", b"")
        orphan = digests.of(b"orphan")
        assert ask(registry, "PUT", f"{location}?digest={orphan}", b"orphan")[0] == 201
        wanted = {digest, image.id, *(layer.digest for layer in image.layers)}
        assert blobs(root) == wanted | {orphan}
        eventually(lambda: blobs(root) == wanted, "the orphan is still there")
        assert ask(registry, "HEAD", f"/v2/app/blobs/{orphan}")[0] == 404
        assert ask(registry, "DELETE", f"/v2/app/manifests/{digest}")[0] == 202
        eventually(lambda: blobs(root) == set(), "the deleted image is still there")


def test_what_two_repositories_have_stays_for_the_second(tmp_path: Path) -> None:
    """A collection takes a blob from the repository that lost its manifest, and leaves it to the other."""
    records = Records(tmp_path / "record.db")
    repositories = Repositories(ContentStore(tmp_path / "content"), records)
    blob = repositories.content.add(b"{}")
    kind = "application/vnd.oci.image.manifest.v1+json"
    entry = {"mediaType": "application/json", "digest": blob, "size": 2}
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": entry, "layers": []}).encode()
    for name in ("a", "b"):
        repositories.link(name, blob)
        repositories.put(name, raw, kind, digests.of(raw), ("1",))
    assert collect.collect(repositories, grace=0).digests == ()
    repositories.delete("a", digests.of(raw))
    assert collect.collect(repositories, grace=0).digests == ()
    assert (repositories.has_blob("a", blob), repositories.has_blob("b", blob)) == (False, True)
    repositories.delete("b", digests.of(raw))
    assert set(collect.collect(repositories, grace=0).digests) == {blob, digests.of(raw)}
    assert repositories.catalog("", 10) == []
    records.close()


def test_killed_in_the_middle(images: Images, image: ImageRecord, tmp_path: Path) -> None:
    """`kill -9` in the middle of an upload leaves no half blob; what was stored is served by the next process."""
    root = tmp_path / "served"
    command: list[str | Path] = [TRIVET, "registry", "serve", "--root", root, "--listen", "127.0.0.1:0", "--insecure"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    registry = process.stdout.readline().split()[-1]
    images.tag("test/base:1", f"{registry}/app:1")
    digest = asyncio.run(images.push(f"{registry}/app:1"))
    _, location = ask(registry, "POST", "/v2/app/blobs/uploads/", b"")
    assert ask(registry, "PATCH", location, b"half")[0] == 202
    process.kill()
    process.wait(10)
    process.stdout.close()
    assert list((root / "content/ingest").iterdir()) != []
    with trivet_registry(root) as again:
        assert list((root / "content/ingest").iterdir()) == []
        assert ask(again, "GET", f"/v2/app/manifests/{digest}")[0] == 200
        assert ask(again, "GET", location)[0] == 404
        for stored in blobs(root):
            images.content.verify(stored)


def test_open_uploads_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open uploads are refused, in all and per repository; those nobody continues are dropped."""
    monkeypatch.setattr(upload, "MOST", 5)
    monkeypatch.setattr(upload, "PER_REPOSITORY", 3)

    async def run() -> None:
        content = ContentStore(tmp_path / "content")
        uploads = Uploads(content)
        for name in ("a", "a", "a", "b", "b"):
            await uploads.begin(name)
        for name in ("a", "b", "c"):
            with pytest.raises(Refusal, match="too many uploads"):
                await uploads.begin(name)
        monkeypatch.setattr(upload, "SLOW", 0.0)
        await uploads.begin("a")
        assert len(list((content.root / "ingest").iterdir())) == 1
        await uploads.close()
        assert list((content.root / "ingest").iterdir()) == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tls-key", "k", "--tls-certificate", "c", "--insecure"], "--insecure and --tls-certificate exclude each"),
        (["--config", "/dev/null/x"], "cannot read /dev/null/x: not a directory"),
        (["--listen", "nowhere"], "--listen 'nowhere' is not HOST:PORT"),
        (["--listen", "127.0.0.1:0", "--tls-key", "/dev/null"], "--tls-certificate and --tls-key belong together"),
        (
            ["--listen", "127.0.0.1:0", "--tls-key", "/dev/null", "--tls-certificate", "/dev/null"],
            "cannot use /dev/null with /dev/null",
        ),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, options: list[str], said: str) -> None:
    """Each wrong setting is one sentence, before anything listens."""
    command: list[str | Path] = [TRIVET, "registry", "serve", "--root", str(tmp_path / "r"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_one_registry_per_root(tmp_path: Path) -> None:
    """A second process on the same root is refused, and so is a taken port."""
    with trivet_registry(tmp_path / "r") as registry:
        command: list[str | Path] = [TRIVET, "registry", "serve", "--listen", registry, "--root"]
        done = subprocess.run([*command, tmp_path / "r"], capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stderr.splitlines()[0]) == (
            1,
            f"trivet: another registry uses {tmp_path / 'r'}",
        )
        done = subprocess.run([*command, tmp_path / "other"], capture_output=True, text=True, timeout=20)
        assert (done.returncode, f"cannot listen on {registry}: " in done.stderr) == (1, True)


def test_accounts(tmp_path: Path) -> None:
    """Without, or with a wrong, name or password nothing is told; the file is read again when it changes."""
    hashed = {word: bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode() for word in ("old", "new")}
    file = tmp_path / "htpasswd"
    file.write_text(f"# people\n\nme:{hashed['old']}\n")

    def status(registry: str, header: str) -> int:
        connection = http.client.HTTPConnection(registry, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/v2/_catalog", headers={"Authorization": header} if header else {})
            answer = connection.getresponse()
            body = json.loads(answer.read())
            assert answer.status == 200 or body["errors"][0]["code"] == "UNAUTHORIZED"
            assert answer.status == 200 or answer.headers["WWW-Authenticate"].startswith("Bearer realm=")
            return answer.status

    def basic(pair: str) -> str:
        return "Basic " + base64.b64encode(pair.encode()).decode()

    with trivet_registry(tmp_path / "r", "--htpasswd", str(file)) as registry:
        wrong = [
            "",
            "Basic",
            "Basic !",
            "Bearer x",
            basic("me"),
            basic("me:new"),
            basic("you:old"),
            basic("me:" + "x" * 99),
        ]
        assert [status(registry, header) for header in wrong] == [401] * len(wrong)
        assert [status(registry, basic("me:old")) for _ in range(3)] == [200] * 3
        file.write_text(f"me:{hashed['new']}\n")
        assert [status(registry, basic(f"me:{word}")) for word in ("old", "new")] == [401, 200]
        file.write_text("me:plain\n")
        assert ask(registry, "GET", "/v2/")[0] != 200
    (tmp_path / "weak").write_text("ok:" + hashed["old"] + "\nme:$apr1$abc$def\n")
    command: list[str | Path] = [TRIVET, "registry", "serve", "--root", tmp_path / "x", "--htpasswd", tmp_path / "weak"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        f"trivet: {tmp_path / 'weak'}:2: not a name and a bcrypt hash",
    )


@pytest.mark.needs("openssl")
def test_tls(images: Images, image: ImageRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS an unknown certificate is refused; with its authority in certs.d push and pull work."""
    authority, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command: list[str | Path] = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*command, "-keyout", key, "-out", authority], check=True, capture_output=True)
    monkeypatch.setattr(certificate, "DIRECTORIES", (tmp_path / "certs.d",))
    options = ["--tls-certificate", str(authority), "--tls-key", str(key)]
    with trivet_registry(tmp_path / "r", *options, tls=True) as registry:
        images.tag("test/base:1", f"{registry}/app:1")
        transport = Transport(registry)
        monkeypatch.setattr(transport, "_schemes", lambda: ("https",))
        with pytest.raises(RegistryUnavailable, match=r"its certificate is not trusted: .*self.signed"):
            asyncio.run(_ping(transport))
        trusted = tmp_path / "certs.d" / registry
        trusted.mkdir(parents=True)
        (trusted / "ca.crt").write_bytes(authority.read_bytes())
        assert asyncio.run(images.push(f"{registry}/app:1")) == image.digest
        assert asyncio.run(images.pull(f"{registry}/app:1")).digest == image.digest
        (trusted / "ca.crt").write_text("no certificate")
        with pytest.raises(InvalidArgument, match=r"certificate .*/ca\.crt cannot be used"):
            asyncio.run(images.pull(f"{registry}/app:1"))


async def _ping(transport: Transport) -> None:
    async with transport:
        await transport.ping()


def test_a_silent_client_holds_nobody_up(tmp_path: Path) -> None:
    """A hundred connections that say nothing, or half a request, don't keep others from being served."""
    with trivet_registry(tmp_path / "r") as registry, contextlib.ExitStack() as undo:
        host, _, port = registry.rpartition(":")
        for number in range(100):
            silent = undo.enter_context(socket.create_connection((host, int(port))))
            silent.sendall(b"PUT /v2/a/manifests/1 HTTP/1.1\r\nHost: x\r\n" if number % 2 else b"")
        assert ask(registry, "GET", "/v2/")[0] == 200


@settings(max_examples=300)
@given(
    st.text(max_size=300).map(lambda text: f"/v2/{text}")
    | st.from_regex(r"/v2/[a-z./%0-9]{1,40}/(blobs|manifests|tags|referrers)/[a-z0-9.:%/]{1,80}")
)
def test_no_path_leaves_the_grammar(path: str) -> None:
    """Whatever a path is, what comes of it is by the specification's grammar, or a refusal."""
    try:
        target = parse(path)
    except Refusal:
        return
    if target.resource not in (Resource.API, Resource.CATALOG):
        assert references.PATH.fullmatch(target.name)
        assert len(target.name) <= 255
    assert ".." not in f"{target.name}/{target.value}".split("/")
    assert "/" not in target.value
