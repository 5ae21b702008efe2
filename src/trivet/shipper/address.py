"""Where a receiver listens: `udp://host:514`, `unix:///dev/log`, `tcp+tls://host:6514`."""

from __future__ import annotations

import select
import socket
import ssl
from dataclasses import dataclass

from trivet.base.error import InvalidArgument

PATIENCE = 5.0  # seconds a receiver has to take what it is sent
LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
SYSLOG, FLUENTD = 514, 24224


@dataclass(frozen=True)
class Address:
    """`kind` is unix, unixgram, udp, tcp or tls; "" is whatever listens on this host. `place` is a path or a host."""

    kind: str
    place: str
    port: int = 0

    @classmethod
    def syslog(cls, text: str) -> Address:
        """Read `syslog-address`. Raises `InvalidArgument` in Docker's words."""
        if not text:
            return cls("", "")
        kind, separator, rest = text.partition("://")
        if not separator or kind not in ("unix", "unixgram", "udp", "tcp", "tcp+tls"):
            raise InvalidArgument(f"syslog-address should be in form proto://address, got {text}")
        if kind.startswith("unix"):
            return cls(kind, rest)
        return cls("tls" if kind == "tcp+tls" else kind, *_host(rest, SYSLOG, "syslog-address", text))

    @classmethod
    def fluentd(cls, text: str) -> Address:
        """Read `fluentd-address`: HOST:PORT, tcp://…, tls://… or unix://PATH. Raises `InvalidArgument`."""
        kind, separator, rest = text.partition("://")
        if not separator:
            kind, rest = "tcp", text
        if kind == "unix" and rest.startswith("/"):
            return cls("unix", rest)
        if kind not in ("tcp", "tls"):
            raise InvalidArgument(f"invalid fluentd-address {text}: it is not tcp, tls or unix")
        return cls(kind, *_host(rest, FLUENTD, "fluentd-address", text))

    def connect(self, tls: ssl.SSLContext | None = None) -> socket.socket:
        """Connect; the socket's patience is PATIENCE. Raises OSError."""
        if not self.kind:
            return _local()
        if self.kind in ("unix", "unixgram"):
            kind = socket.SOCK_DGRAM if self.kind == "unixgram" else socket.SOCK_STREAM
            return _unix(self.place, kind)
        if self.kind == "udp":
            return _datagram(self.place, self.port)
        link = socket.create_connection((self.place, self.port), PATIENCE)
        if tls is None:
            return link
        try:
            return tls.wrap_socket(link, server_hostname=self.place)
        except BaseException:
            link.close()
            raise

    @property
    def stream(self) -> bool:
        """Whether messages follow one another without bounds."""
        return self.kind in ("unix", "tcp", "tls")


def gone(link: socket.socket) -> bool:
    """Tell whether the other side has closed a stream, which writing would notice only the next time."""
    poll = select.poll()
    poll.register(link, select.POLLIN)
    if isinstance(link, ssl.SSLSocket) or not poll.poll(0):
        return False
    return link.recv(1, socket.MSG_PEEK) == b""


def _local() -> socket.socket:
    for path in LOCAL:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            try:
                return _unix(path, kind)
            except OSError:
                continue
    raise FileNotFoundError(2, "no syslog listens on this host", LOCAL[0])


def _unix(path: str, kind: socket.SocketKind) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, kind)
    link.settimeout(PATIENCE)
    try:
        link.connect(path)
    except BaseException:
        link.close()
        raise
    return link


def _datagram(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    link = socket.socket(family, kind, protocol)
    link.settimeout(PATIENCE)
    link.connect(place)
    return link


def _host(text: str, default: int, option: str, whole: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidArgument(f'invalid {option} {whole}: strconv.Atoi: parsing "{port}": invalid syntax')
    return host.strip("[]") or "127.0.0.1", int(port)
