"""Who gets into our registry: tokens, rights, and the authority that vouches for it."""

from __future__ import annotations

import asyncio
import base64
import http.client
import itertools
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import bcrypt
import pytest
from tests.image.served import trivet_registry

from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageRecord
from trivet.oci import digest as digests
from trivet.oci.descriptor import Descriptor
from trivet.registry import announce, certificate
from trivet.registry.auth import Credentials, challenges
from trivet.registry.error import LoginRequired, RegistryUnavailable
from trivet.registry.push import Pusher
from trivet.registry.transport import Transport

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
USERS = ("admin", "ann", "bob", "")
REPOSITORIES = ("team/a", "team/b", "open/c", "missing/d")
CONFIG = """
[group]
ops = ["admin"]
[[allow]]
user = ["@ops"]
repository = ["**"]
rights = ["pull", "push", "delete"]
[[allow]]
user = ["ann"]
repository = ["team/*"]
rights = ["pull"]
[[allow]]
user = ["ann"]
repository = ["team/a"]
rights = ["push"]
[[allow]]
user = ["anonymous"]
repository = ["open/**"]
rights = ["pull"]
"""
ALLOWED = {
    ("ann", "team/a"): "pull push",
    ("ann", "team/b"): "pull",
    **{("admin", repository): "pull push delete" for repository in REPOSITORIES},
    **{(user, "open/c"): "pull" for user in ("ann", "bob", "")},
}


class Answer(NamedTuple):
    """What a registry said."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Door:
    """A registry with accounts and rights; a password is the name twice."""

    def __init__(self, address: str, place: Path) -> None:
        self.address = address
        self.config = place / "registry.toml"
        self.users = place / "htpasswd"

    def ask(self, method: str, path: str, body: bytes | None = None, /, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.address, timeout=10)
        with closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def token(self, user: str, *scopes: str) -> str:
        answer = self.ask("GET", "/token?" + urlencode([("scope", each) for each in scopes]), **basic(user))
        assert answer.status == 200
        return str(answer.json["token"])

    def upload(self, repository: str, data: bytes) -> dict[str, Any]:
        digest = digests.of(data)
        path = f"/v2/{repository}/blobs/uploads/?digest={digest}"
        assert self.ask("POST", path, data, **basic("admin")).status == 201
        return {"mediaType": "x/y", "digest": digest, "size": len(data)}

    def image(self, repository: str) -> tuple[str, str]:
        """Store an image under tag 1; return the digests of its manifest and of a blob."""
        part = self.upload(repository, repository.encode())
        raw = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": part, "layers": []}).encode()
        headers = {"Content-Type": MANIFEST, **basic("admin")}
        assert self.ask("PUT", f"/v2/{repository}/manifests/1", raw, **headers).status == 201
        return digests.of(raw), part["digest"]


def basic(user: str, password: str = "") -> dict[str, str]:
    pair = f"{user}:{password or user * 2}".encode()
    return {"Authorization": "Basic " + base64.b64encode(pair).decode()} if user else {}


def write_users(file: Path, **passwords: str) -> None:
    hashed = {user: bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode() for user, word in passwords.items()}
    file.write_text("".join(f"{user}:{each}\n" for user, each in hashed.items()))


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """A registry with the rights above and three accounts."""
    write_users(tmp_path / "htpasswd", **{user: user * 2 for user in USERS if user})
    (tmp_path / "registry.toml").write_text(CONFIG)
    options = ["--htpasswd", str(tmp_path / "htpasswd"), "--config", str(tmp_path / "registry.toml")]
    with trivet_registry(tmp_path / "served", *options) as address:
        yield Door(address, tmp_path)


@pytest.mark.parametrize("way", ["password", "token"])
def test_every_user_repository_and_endpoint(door: Door, way: str) -> None:
    """Each request is let in exactly where the table says so; a refusal tells nothing else."""
    stored = {name: door.image(name) for name in REPOSITORIES[:3]}
    nothing = "sha256:" + "0" * 64
    for user, name in itertools.product(USERS, REPOSITORIES):
        manifest, blob = stored.get(name, (nothing, nothing))
        upload = "0" * 32
        endpoints = [
            ("pull", "GET", f"manifests/{manifest}"),
            ("pull", "HEAD", "manifests/1"),
            ("pull", "GET", f"blobs/{blob}"),
            ("pull", "HEAD", f"blobs/{blob}"),
            ("pull", "GET", "tags/list"),
            ("pull", "GET", f"referrers/{manifest}"),
            ("push", "POST", "blobs/uploads/"),
            ("push", "PATCH", f"blobs/uploads/{upload}"),
            ("push", "PUT", f"blobs/uploads/{upload}?digest={blob}"),
            ("push", "GET", f"blobs/uploads/{upload}"),
            ("push", "DELETE", f"blobs/uploads/{upload}"),
            ("push", "PUT", "manifests/2"),
            ("delete", "DELETE", f"manifests/{nothing}"),
            ("delete", "DELETE", "manifests/none"),
            ("delete", "DELETE", f"blobs/{nothing}"),
        ]
        headers = basic(user)
        if way == "token":
            headers = {"Authorization": f"Bearer {door.token(user, f'repository:{name}:pull,push,delete')}"}
        for right, method, path in endpoints:
            answer = door.ask(
                method, f"/v2/{name}/{path}", b"" if method in ("POST", "PATCH", "PUT") else None, **headers
            )
            if right in ALLOWED.get((user, name), ""):
                assert answer.status not in (401, 403), (user, name, method, path)
            else:
                assert answer.status == (403 if user else 401), (user, name, method, path)
                assert method == "HEAD" or answer.json["errors"][0]["code"] == ("DENIED" if user else "UNAUTHORIZED")
                assert nothing == blob or blob not in answer.body.decode()


def test_a_mount_wants_rights_on_both_sides(door: Door) -> None:
    """Who may push here but not pull there doesn't get the blob, and hears the same as of one that isn't there."""
    door.image("team/a")
    _, secret = door.image("hidden/x")
    _, shared = door.image("team/b")
    for digest, source, status in [
        (secret, "hidden/x", 202),
        ("sha256:" + "1" * 64, "hidden/x", 202),
        (shared, "team/b", 201),
    ]:
        path = f"/v2/team/a/blobs/uploads/?mount={digest}&from={source}"
        assert door.ask("POST", path, b"", **basic("ann")).status == status
    narrow = door.token("ann", "repository:team/a:pull,push")
    path = f"/v2/team/a/blobs/uploads/?mount={shared}&from=team/b"
    assert door.ask("POST", path, b"", Authorization=f"Bearer {narrow}").status == 202


def test_the_catalog_shows_what_one_may_pull(door: Door) -> None:
    """Everybody's list is his own, also in pages."""
    for name in REPOSITORIES[:3]:
        door.image(name)
    seen = {
        user: door.ask("GET", "/v2/_catalog", **basic(user)).json["repositories"] for user in ("admin", "ann", "bob")
    }
    assert seen == {"admin": ["open/c", "team/a", "team/b"], "ann": ["open/c", "team/a", "team/b"], "bob": ["open/c"]}
    assert door.ask("GET", "/v2/_catalog").status == 401
    nobody = {"Authorization": f"Bearer {door.token('')}"}
    assert door.ask("GET", "/v2/_catalog", **nobody).json["repositories"] == ["open/c"]
    first = door.ask("GET", "/v2/_catalog?n=2", **basic("ann"))
    assert (first.json["repositories"], "last=team%2Fa" in first.headers["Link"]) == (["open/c", "team/a"], True)


def test_what_is_taken_away_is_gone_at_once(door: Door) -> None:
    """A token doesn't outlive the right, the password or the account it was got with; a broken file lets nobody in."""
    door.image("team/b")
    token = {"Authorization": f"Bearer {door.token('ann', 'repository:team/b:pull')}"}
    url = "/v2/team/b/manifests/1"
    assert door.ask("GET", url, **token).status == 200
    door.config.write_text(CONFIG.replace('["team/*"]', '["team/x"]'))
    assert door.ask("GET", url, **token).status == 403
    door.config.write_text("[[allow")
    assert door.ask("GET", url, **basic("admin")).status == 500
    door.config.write_text(CONFIG)
    assert door.ask("GET", url, **token).status == 200
    write_users(door.users, ann="other")
    assert door.ask("GET", url, **token).status == 401
    write_users(door.users, bob="bobbob")
    assert door.ask("GET", url, **token).status == 401


def test_the_token_flow(door: Door) -> None:
    """A challenge names realm, service and scope; tokens are got by GET and POST, and forged ones are refused."""
    door.image("team/b")
    answer = door.ask("GET", "/v2/team/b/tags/list")
    (challenge,) = challenges(answer.headers["WWW-Authenticate"])
    assert answer.status == 401
    assert challenge.scheme == "bearer"
    assert challenge.parameters == {
        "realm": f"http://{door.address}/token",
        "service": "trivet-registry",
        "scope": "repository:team/b:pull",
    }
    form = {"grant_type": "password", "username": "ann", "password": "annann", "access_type": "offline"}
    form["scope"] = "repository:team/b:pull repository:team/a:*"
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    given = door.ask("POST", "/token", urlencode(form).encode(), **kind).json
    again = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"], "scope": form["scope"]}
    second = door.ask("POST", "/token", urlencode(again).encode(), **kind).json
    url = "/v2/team/b/tags/list"
    for token in (given["access_token"], second["token"]):
        assert door.ask("GET", url, Authorization=f"Bearer {token}").status == 200
        other = door.ask("GET", "/v2/open/c/tags/list", Authorization=f"Bearer {token}")
        assert (other.status, 'error="insufficient_scope"' in other.headers["WWW-Authenticate"]) == (401, True)
    good = given["access_token"]
    header, body, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "admin"}).encode()).rstrip(b"=").decode()
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    bad = [f"{header}.{forged}.{signature}", f"{none}.{forged}.", given["refresh_token"], "", "..", "a" * 7000]
    assert [door.ask("GET", url, Authorization=f"Bearer {each}").status for each in bad] == [401] * len(bad)
    wrong = [{**form, "password": "x"}, {**again, "refresh_token": good}]
    assert [door.ask("POST", "/token", urlencode(each).encode(), **kind).status for each in wrong] == [401, 401]
    assert door.ask("POST", "/token", urlencode({"grant_type": "x"}).encode(), **kind).status == 400
    assert door.ask("GET", "/token", **basic("ann", "wrong")).status == 401


def test_trivet_pushes_and_pulls_with_tokens(door: Door, images: Images, image: ImageRecord) -> None:
    """Our own client gets the tokens it needs, and is told plainly where it may not."""

    async def run(user: str, repository: str) -> str:
        async with Pusher(door.address, repository, Credentials(user, user * 2)) as pusher:
            for each in (image.id, *(layer.digest for layer in image.layers)):
                size = images.content.size(each)
                part = descriptor(each, size)
                await pusher.blob(part, lambda each=each: images.content.open(each), lambda _: None)  # type: ignore[misc]
            raw = images.content.read(image.manifest, limit=1 << 20)
            return await pusher.manifest(raw, MANIFEST, "1")

    def descriptor(digest: str, size: int) -> Descriptor:
        return Descriptor(media_type="x/y", digest=digest, size=size)

    assert asyncio.run(run("ann", "team/a")) == image.manifest
    with pytest.raises(Exception, match=r"denies access to team/b: ann may not push in team/b|denies access"):
        asyncio.run(run("ann", "team/b"))
    with pytest.raises(LoginRequired):
        asyncio.run(run("nobody", "team/a"))


def test_its_own_authority_is_trusted_here(
    images: Images, image: ImageRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any option there is TLS; the engine on the machine trusts it, others with what `registry ca` prints."""
    monkeypatch.setattr(announce, "directories", lambda: [Path("/run/trivet-registry")])
    root = tmp_path / "served"
    with trivet_registry(root, "--name", "registry.test", tls=True) as registry:
        port = int(registry.rpartition(":")[2])
        images.tag("test/base:1", f"{registry}/app:1")
        assert asyncio.run(images.push(f"{registry}/app:1")) == image.digest
        assert announce.announced(port) is not None
        command: list[str | Path] = [Path(sys.executable).with_name("trivet"), "registry", "ca", "--root", root]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        context = ssl.create_default_context(cadata=printed)
        for name in ("registry.test", "localhost"):
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
            connection.connect()
            connection.close()
            certificate_ = ssl.get_server_certificate(("127.0.0.1", port))
            assert ssl.PEM_cert_to_DER_cert(certificate_)
            shown = subprocess.run(
                ["openssl", "x509", "-noout", "-checkhost", name], input=certificate_, capture_output=True, text=True
            )
            assert "does match" in shown.stdout
        assert {path.stat().st_mode & 0o077 for path in (root / "tls").iterdir()} == {0}
        # nobody on this machine may say whom to trust but root and oneself
        monkeypatch.setattr(announce, "directories", lambda: [tmp_path / "run"])
        with pytest.raises(RegistryUnavailable, match="certificate is not trusted"):
            asyncio.run(_https(registry, monkeypatch))
        (tmp_path / "run").mkdir(mode=0o755)
        (tmp_path / "run" / f"{port}.crt").write_text(printed)
        os.chmod(tmp_path / "run" / f"{port}.crt", 0o666)  # noqa: PTH101
        assert announce.announced(port) is None
        assert certificate.context(registry) is None
    before = (root / "tls/ca.crt").read_bytes()
    with trivet_registry(root, tls=True):
        assert (root / "tls/ca.crt").read_bytes() == before
    assert not Path(f"/run/trivet-registry/{port}.crt").exists()


async def _https(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Transport(registry)
    monkeypatch.setattr(transport, "_schemes", lambda: ("https",))
    async with transport:
        await transport.ping()
