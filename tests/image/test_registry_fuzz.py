"""Upload requests in any order, with any range and digest, beside a model of what must come of them."""

from __future__ import annotations

import http.client
import random
from contextlib import closing
from pathlib import Path

import pytest
from tests.image.served import trivet_registry

from trivet.oci import digest as digests

STEPS = 250


class Model:
    """One connection to a registry, and what each open upload must have."""

    def __init__(self, connection: http.client.HTTPConnection, seed: int) -> None:
        self.connection = connection
        self.chance = random.Random(seed)
        self.open: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request."""
        self.connection.request(method, path, body, {key.replace("_", "-"): text for key, text in headers.items()})
        answer = self.connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()

    def step(self) -> None:
        """Do something to some upload, or begin one."""
        if not self.open or self.chance.random() < 0.2:
            status, headers, _ = self.ask("POST", "/v2/f/blobs/uploads/", b"")
            assert status == 202
            self.open[headers["Location"]] = b""
            return
        where = self.chance.choice(sorted(self.open))
        self.chance.choice([self.chunk, self.chunk, self.commit, self.cancel, self.look])(where)

    def chunk(self, where: str) -> None:
        """Append; with a range that is right, wrong, malformed, or none."""
        data, have = self.chance.randbytes(self.chance.choice([1, 17, 5000])), len(self.open[where])
        ranges = {
            f"{have}-{have + len(data) - 1}": 202,
            f"{have + 1}-{have + len(data)}": 416,
            f"{have}-{have + len(data)}": 400,
            "-": 400,
            f"{9**30}-{9**31}": 400,
            "": 202,
        }
        text, wanted = self.chance.choice(sorted(ranges.items()))
        status, headers, _ = self.ask("PATCH", where, data, **({"Content_Range": text} if text else {}))
        assert status == wanted, text
        self.open[where] += data if wanted == 202 else b""
        assert wanted == 400 or headers["Range"] == f"0-{max(len(self.open[where]) - 1, 0)}"

    def commit(self, where: str) -> None:
        """End with a digest that is right, somebody else's, or nonsense; the last bytes may come along."""
        data = self.open[where] + (rest := self.chance.randbytes(self.chance.choice([0, 0, 40])))
        right = digests.of(data, self.chance.choice(["sha256", "sha512"]))
        digest = self.chance.choice([right, right, digests.of(b"other"), "sha256:../../x", "md5:00", ""])
        status, _, _ = self.ask("PUT", f"{where}?digest={digest}", rest)
        assert status == (201 if digest == right else 400)
        if digest == right:
            self.stored[digest] = data
        if digest in (right, digests.of(b"other")):  # a digest that is none is refused before the upload is touched
            del self.open[where]
            assert self.ask("GET", where)[0] == 404

    def cancel(self, where: str) -> None:
        """Give up."""
        assert self.ask("DELETE", where)[0] == 204
        del self.open[where]
        assert self.ask("PATCH", where, b"x")[0] == 404

    def look(self, where: str) -> None:
        """Ask how much is there."""
        status, headers, _ = self.ask("GET", where)
        assert (status, headers["Range"]) == (204, f"0-{max(len(self.open[where]) - 1, 0)}")


@pytest.mark.parametrize("seed", [1, 2])
def test_uploads_in_any_order(tmp_path: Path, seed: int) -> None:
    """Every answer is the model's, every blob is whole, and nothing but the open uploads is left beside them."""
    with (
        trivet_registry(tmp_path / "r") as address,
        closing(http.client.HTTPConnection(address, timeout=30)) as connection,
    ):
        model = Model(connection, seed)
        for _ in range(STEPS):
            model.step()
        assert model.stored
        for digest, data in model.stored.items():
            assert model.ask("GET", f"/v2/f/blobs/{digest}")[::2] == (200, data)
        assert len(list((tmp_path / "r/content/ingest").iterdir())) == len(model.open)
        blobs = {path.name for path in (tmp_path / "r/content/blobs").rglob("*") if path.is_file()}
        assert blobs == {digest.partition(":")[2] for digest in model.stored}
