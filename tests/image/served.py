"""Registries to test against: our own, run as people run it."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def trivet_registry(root: Path, *options: str, tls: bool = False) -> Iterator[str]:
    """Run `trivet registry serve` with its data below `root`, plain or over TLS; yield HOST:PORT."""
    words = [
        "registry",
        "serve",
        "--root",
        str(root),
        "--listen",
        "127.0.0.1:0",
        *options,
        *([] if tls else ["--insecure"]),
    ]
    process = subprocess.Popen([Path(sys.executable).with_name("trivet"), *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        said = process.stdout.readline().decode().split()
        assert said, "the registry did not come up"
        yield said[-1]
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.stdout.close()


@contextmanager
def bucket(place: Path) -> Iterator[str]:
    """Run an S3 server, moto's, and make a bucket; yield its URL. It forgets everything at the end."""
    place.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: list[str | Path] = [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    words = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret"}
    before = {key: os.environ.get(key) for key in words}
    os.environ.update(words)
    try:
        _make_bucket(port)
        yield f"http://127.0.0.1:{port}/images/deep/down"
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
        process.kill()
        process.wait(10)


def _make_bucket(port: int) -> None:
    deadline = time.monotonic() + 60
    signature = "Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"
    while True:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                connection.request("PUT", "/images", headers={"Authorization": f"AWS4-HMAC-SHA256 {signature}"})
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
