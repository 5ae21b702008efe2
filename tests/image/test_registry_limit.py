"""What our registry does on its own account: quotas, retention, metrics, webhooks."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.image.served import trivet_registry

from trivet.oci import digest as digests
from trivet.registry.server import retention, webhook
from trivet.registry.server.metric import Metrics
from trivet.registry.server.policy import Limit, Policy, PolicyFile
from trivet.registry.server.repository import Repositories
from trivet.registry.server.webhook import Happened, Webhooks
from trivet.store.content import ContentStore
from trivet.store.record import Records

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DAY = 86400.0


def ask(address: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, bytes]:
    """Send a request; tell status, Location and body."""
    connection = http.client.HTTPConnection(address, timeout=10)
    with closing(connection):
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Location", ""), answer.read()


def upload(address: str, name: str, data: bytes) -> int:
    """Upload a blob in one request; tell the status."""
    return ask(address, "POST", f"/v2/{name}/blobs/uploads/?digest={digests.of(data)}", data)[0]


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_quota_holds_on_every_way_in(tmp_path: Path) -> None:
    """What a repository has no room for is refused, however it comes, and takes no room; others are not concerned."""
    config = tmp_path / "c.toml"
    config.write_text('[[limit]]\nrepository = ["small/**"]\nquota = "10k"\n')
    with trivet_registry(tmp_path / "r", "--config", str(config)) as address:
        assert upload(address, "small/a", bytes(6000)) == 201
        large = b"x" * 6000
        status, _, body = ask(address, "POST", f"/v2/small/a/blobs/uploads/?digest={digests.of(large)}", large)
        assert (status, json.loads(body)["errors"][0]["code"]) == (403, "DENIED")
        assert b"has 6000 bytes and may have 10240: no room for 6000 more" in body
        _, where, _ = ask(address, "POST", "/v2/small/a/blobs/uploads/", b"")
        assert ask(address, "PATCH", where, large)[0] == 403
        assert ask(address, "PATCH", where, iter([large]))[0] == 202  # in chunks nobody knows how much is to come
        assert ask(address, "PUT", f"{where}?digest={digests.of(large)}", b"")[0] == 403
        assert upload(address, "other/a", large) == 201
        mount = f"/v2/small/a/blobs/uploads/?mount={digests.of(large)}&from=other/a"
        assert ask(address, "POST", mount, b"")[0] == 403
        assert upload(address, "small/b", large) == 201
        assert ask(address, "DELETE", f"/v2/small/a/blobs/{digests.of(bytes(6000))}")[0] == 202
        assert ask(address, "POST", mount, b"")[0] == 201
        config.write_text('[[limit]]\nrepository = ["**"]\nquota = "lots"\n')
        assert upload(address, "small/c", b"y") == 500


@pytest.fixture
def repositories(tmp_path: Path) -> Iterator[Repositories]:
    """Repositories without a server."""
    records = Records(tmp_path / "record.db")
    yield Repositories(ContentStore(tmp_path / "content"), records)
    records.close()


def put(repositories: Repositories, text: str, *tags: str, subject: str = "", children: tuple[str, ...] = ()) -> str:
    """Store a small manifest, or an index of `children`, in repository a; return its digest."""
    blob = repositories.content.add(text.encode())
    repositories.link("a", blob, len(text))
    part = {"mediaType": "x/y", "digest": blob, "size": len(text)}
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST, "config": part, "layers": []}
    if children:
        entries = [{"mediaType": MANIFEST, "digest": each, "size": 1} for each in children]
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    if subject:
        document["subject"] = {"mediaType": MANIFEST, "digest": subject, "size": 1}
    raw = json.dumps(document).encode()
    repositories.put("a", raw, document["mediaType"], digests.of(raw), tags)
    return digests.of(raw)


def test_retention_keeps_the_newest_tags(repositories: Repositories) -> None:
    """Of many tags the newest stay, and the young ones; a note on a manifest stays as long as that one does."""
    made = []
    for number in range(6):
        made.append(put(repositories, f"i{number}", f"v{number}"))
        time.sleep(0.01)
    put(repositories, "sig", f"sha256-{made[0][7:]}.sig")
    put(repositories, "sig", f"sha256-{'0' * 64}.sig")
    policy = Policy(limit=(Limit(repository=("a",), keep_tags=2, keep_days=30),))
    assert retention.expire(repositories, policy) == []
    gone = retention.expire(repositories, policy, time.time() + 31 * DAY)
    assert sorted(gone) == ["a:v0", "a:v1", "a:v2", "a:v3", "a:v4"]
    assert f"sha256-{made[0][7:]}.sig" in repositories.list_tags("a", "", 100)
    elsewhere = Policy(limit=(Limit(repository=("b",), keep_tags=1), Limit(repository=("**",))))
    assert retention.expire(repositories, elsewhere, time.time() + 99 * DAY) == []


def test_retention_of_what_has_no_tag(repositories: Repositories) -> None:
    """Untagged manifests go after their time, but not what a tagged index lists or what refers to what stays."""
    child, kept = put(repositories, "child"), put(repositories, "kept", "1")
    index = put(repositories, "index", "2", children=(child,))
    referrer, lost = put(repositories, "referrer", subject=kept), put(repositories, "lost")
    policy = Policy(limit=(Limit(repository=("*",), untagged_days=7),))
    assert retention.expire(repositories, policy) == []
    assert retention.expire(repositories, policy, time.time() + 8 * DAY) == [f"a@{lost}"]
    assert {each.digest for each in repositories.manifests.all()} == {child, kept, index, referrer}
    repositories.delete("a", "2")
    assert retention.expire(repositories, policy, time.time() + 8 * DAY) == [f"a@{index}"]
    assert retention.expire(repositories, policy, time.time() + 8 * DAY) == [f"a@{child}"]


def test_metrics(tmp_path: Path) -> None:
    """Requests, bytes and uploads are counted, at an address of their own."""
    port = free_port()
    with trivet_registry(tmp_path / "r", "--metrics", f"127.0.0.1:{port}") as address:
        assert upload(address, "a", bytes(5000)) == 201
        ask(address, "GET", f"/v2/a/blobs/{digests.of(bytes(5000))}")
        ask(address, "GET", "/v2/a/blobs/nonsense")
        ask(address, "POST", "/v2/a/blobs/uploads/", b"")
        ask(address, "OPTIONS", "/v2/")
        assert ask(address, "GET", "/metrics")[0] == 404
        status, _, body = ask(f"127.0.0.1:{port}", "GET", "/metrics")
    lines = body.decode().splitlines()
    values = dict(line.removeprefix("trivet_registry_").rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert status == 200
    assert values["received_bytes_total"] == "5000"
    assert int(values["sent_bytes_total"]) >= 5000
    assert values["uploads_open"] == "1"
    assert values['requests_total{method="POST",status="201"}'] == "1"
    assert values['requests_total{method="GET",status="400"}'] == "1"
    assert values['requests_total{method="other",status="405"}'] == "1"
    assert values["requests_running"] == "0"


class Listener(http.server.BaseHTTPRequestHandler):
    """Takes webhook calls, after refusing the first."""

    calls: list[tuple[bytes, str]]
    refusals: int

    def do_POST(self) -> None:
        """Note a call."""
        kind = type(self)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind.calls.append((body, self.headers.get("X-Trivet-Signature", "")))
        self.send_response(503 if len(kind.calls) <= kind.refusals else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def listener() -> Iterator[tuple[str, type[Listener]]]:
    """Somebody who listens for events: the address, and what came."""
    kind = type("Noting", (Listener,), {"calls": [], "refusals": 1})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", kind
    server.shutdown()
    thread.join()
    server.server_close()


def test_webhooks(tmp_path: Path, listener: tuple[str, type[Listener]]) -> None:
    """A push and a deletion are told, signed, and again when they weren't taken; other repositories aren't."""
    url, heard = listener
    (tmp_path / "key").write_text("secret\n")
    (tmp_path / "c.toml").write_text(
        f'[[webhook]]\nurl = "{url}"\nrepository = ["team/*"]\nsecret = "{tmp_path / "key"}"\n'
    )
    raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    with trivet_registry(tmp_path / "r", "--config", str(tmp_path / "c.toml")) as address:
        for name in ("other/a", "team/a"):
            assert ask(address, "PUT", f"/v2/{name}/manifests/1", raw, Content_Type=INDEX)[0] == 201
        assert ask(address, "DELETE", f"/v2/team/a/manifests/{digests.of(raw)}")[0] == 202
        deadline = time.monotonic() + 15
        while len(heard.calls) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert heard.calls[0] == heard.calls[1]  # refused, and told again
    events = [json.loads(body)["events"][0] for body, _ in heard.calls[1:]]
    assert [(event["action"], event["target"]["repository"]) for event in events] == [
        ("push", "team/a"),
        ("delete", "team/a"),
    ]
    assert events[0]["target"] == {
        "repository": "team/a",
        "digest": digests.of(raw),
        "tag": "1",
        "mediaType": INDEX,
        "size": len(raw),
    }
    for body, signature in heard.calls:
        assert signature == "sha256=" + hmac.digest(b"secret", body, hashlib.sha256).hex()


async def _drop(policy: PolicyFile) -> str:
    metrics = Metrics()
    webhooks = Webhooks(policy, metrics)
    for _ in range(4):
        await webhooks.tell(Happened(action="push", repository="a"))
    await webhooks.close()
    return metrics.text()


def test_webhooks_nobody_takes_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is full drops events and counts them; nobody waits for a dead listener."""
    import asyncio

    monkeypatch.setattr(webhook, "QUEUE", 2)
    file = tmp_path / "c.toml"
    file.write_text(f'[[webhook]]\nurl = "http://127.0.0.1:{free_port()}/"\n')
    text = asyncio.run(_drop(PolicyFile(file)))
    assert 'trivet_registry_webhook_deliveries_total{outcome="dropped"}' in text
