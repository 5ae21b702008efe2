"""The process behind `trivet registry serve`: read the options, listen, and on SIGTERM finish what is under way."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import msgspec
from aiohttp import web

from trivet.base.error import AlreadyExists, InvalidArgument, TrivetError, Unavailable
from trivet.registry.announce import announce
from trivet.registry.server.account import Accounts
from trivet.registry.server.application import application, metrics_application
from trivet.registry.server.gate import Gate
from trivet.registry.server.policy import PolicyFile
from trivet.registry.server.registry import opened
from trivet.registry.server.token import Tokens

log = logging.getLogger("trivet.registry")

BUFFER = 256 << 10  # bytes of a body that wait while the ones before are hashed and written
SHUTDOWN = 5.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the process was told."""

    root: Path
    host: str
    port: int
    certificate: Path | None
    key: Path | None
    htpasswd: Path | None
    config: Path | None
    names: tuple[str, ...]
    insecure: bool
    metrics: tuple[str, int] | None
    s3: str
    collect_every: float
    grace: float


def main(arguments: list[str] | None = None) -> int:
    """Run a registry until SIGTERM or SIGINT; returns the exit status."""
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.umask(0o077)
    try:
        settings = parse(arguments)
        with _locked(settings.root):
            asyncio.run(_serve(settings))
    except TrivetError as error:
        print(f"trivet: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 2 if isinstance(error, InvalidArgument) else 1
    return 0


def parse(arguments: list[str] | None = None) -> Settings:
    """Read the options. Raises `InvalidArgument`."""
    parser = argparse.ArgumentParser(prog="trivet registry serve", allow_abbrev=False)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--listen", default="127.0.0.1:5000")
    parser.add_argument("--tls-certificate", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--htpasswd", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--s3", default="")
    parser.add_argument("--metrics", default="")
    parser.add_argument("--name", action="append", default=[])
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument("--collect-every", type=float, default=3600.0)
    parser.add_argument("--grace", type=float, default=3600.0)
    args = parser.parse_args(arguments)
    host, port = _address("--listen", args.listen)
    if (args.tls_certificate is None) != (args.tls_key is None):
        raise InvalidArgument("--tls-certificate and --tls-key belong together")
    if args.insecure and args.tls_certificate:
        raise InvalidArgument("--insecure and --tls-certificate exclude each other")
    if args.collect_every <= 0 or args.grace < 0:
        raise InvalidArgument("--collect-every and --grace are positive numbers of seconds")
    return Settings(
        root=args.root,
        host=host,
        port=port,
        certificate=args.tls_certificate,
        key=args.tls_key,
        htpasswd=args.htpasswd,
        config=args.config,
        names=tuple(args.name),
        insecure=args.insecure,
        s3=args.s3,
        metrics=_address("--metrics", args.metrics) if args.metrics else None,
        collect_every=args.collect_every,
        grace=args.grace,
    )


def _address(option: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"{option} {text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Make the root and hold it against a second registry."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"cannot use {error.filename}: {(error.strerror or str(error)).lower()}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise AlreadyExists(f"another registry uses {root}", hint="choose another --root") from None
    finally:
        os.close(descriptor)


async def _serve(settings: Settings) -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    policy = PolicyFile(settings.config)
    gate = Gate(Accounts(settings.htpasswd) if settings.htpasswd else None, policy, Tokens(settings.root))
    context, authority = await asyncio.to_thread(_tls, settings)
    times = {"collect_every": settings.collect_every, "grace": settings.grace}
    async with AsyncExitStack() as undo:
        registry = await undo.enter_async_context(opened(settings.root, policy, s3=settings.s3, **times))
        if settings.metrics:
            counted = web.AppRunner(metrics_application(registry), access_log=None)
            undo.push_async_callback(counted.cleanup)
            await _listen(counted, *settings.metrics)
        runner = web.AppRunner(
            application(registry, gate),
            access_log=None,
            shutdown_timeout=SHUTDOWN,
            read_bufsize=BUFFER,
            lingering_time=2.0,
        )
        undo.push_async_callback(runner.cleanup)
        port = await _listen(runner, settings.host, settings.port, context)
        told = announce(port, authority) if authority else None
        if told:
            undo.callback(told.unlink, missing_ok=True)
        print(f"registry at {settings.host}:{port}", flush=True)
        await ended.wait()


async def _listen(runner: web.AppRunner, host: str, port: int, context: ssl.SSLContext | None = None) -> int:
    """Begin to serve; return the port, which the system chooses for 0. Raises `Unavailable`."""
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=context).start()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Unavailable(f"cannot listen on {host}:{port}: {reason}") from error
    return int(runner.addresses[0][1])


def _tls(settings: Settings) -> tuple[ssl.SSLContext | None, bytes]:
    """Make the TLS settings, and name the authority to announce if it is our own."""
    if settings.insecure:
        return None, b""
    certificate, key, authority = settings.certificate, settings.key, b""
    if certificate is None or key is None:
        certificate, key, authority = _own(settings)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"cannot use {certificate} with {key}: {error}") from error
    return context, authority


def _own(settings: Settings) -> tuple[Path, Path, bytes]:
    """Have the authority give a certificate, in a process of its own: its key is not for one that serves strangers."""
    names = [word for name in (settings.host, *settings.names) for word in ("--name", name)]
    command = [sys.executable, "-m", "trivet.registry.server.authority", "--root", str(settings.root), *names]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        message, _, hint = done.stderr.removeprefix("trivet: ").strip().partition("\nhint: ")
        raise Unavailable(message or "the authority gives no certificate", hint=hint or None)
    directory = settings.root / "tls"
    return directory / "server.crt", directory / "server.key", done.stdout.encode()


if __name__ == "__main__":
    sys.exit(main())
