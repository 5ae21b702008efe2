"""An HTTPS server of a test's own, on the loopback: a directory's files, with ranges, and breaks if wanted."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Web:
    """What is served, what was asked for, and after how many bytes answers break off (0: they don't)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.asked: list[tuple[str, str]] = []
        self.breaks = 0
        self.address = ""


def certificate(directory: Path) -> tuple[Path, Path]:
    """Make a certificate for the loopback, and its key."""
    paths = directory / "cert.pem", directory / "key.pem"
    command: list[str | Path] = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


@contextmanager
def serving(directory: Path, pair: tuple[Path, Path]) -> Iterator[Web]:
    """Serve a directory while the block runs."""
    web = Web(directory)

    class Handler(BaseHTTPRequestHandler):
        """Of this server."""

        def do_GET(self) -> None:
            """Answer with a file, or the rest of it."""
            wanted = self.headers.get("Range", "")
            web.asked.append((self.path, wanted))
            file = directory / self.path.lstrip("/")
            if not file.is_file():
                self.send_error(404)
                return
            content, first = file.read_bytes(), int(wanted.removeprefix("bytes=").rstrip("-") or 0)
            if wanted and first >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            self.wfile.write(content[first : first + web.breaks] if web.breaks else content[first:])

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    web.address = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
