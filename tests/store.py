"""A store of several hosts: real etcd, of one member or several, each in a namespace, with TLS if it is wished for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

_ASK = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], sys.argv[2].encode(), 5).read().decode())"


class Somewhere(Protocol):
    """Where a member runs."""

    @property
    def words(self) -> tuple[str, ...]:
        """What a command line begins with to run there."""
        ...

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command there; what it printed."""
        ...


class Authority:
    """A certificate authority, and what it signed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        self.file = directory / "ca.crt"
        self._key(directory / "ca.key")
        self._run("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=authority", "-days", "2", "-out", "ca.crt")

    def sign(self, name: str, *addresses: str) -> tuple[Path, Path]:
        """Make a certificate and its key for a server at addresses, which is a client too; or for a client alone."""
        certificate, key = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        self._key(key)
        uses = f"extendedKeyUsage={'serverAuth,' if addresses else ''}clientAuth\n"
        names = f"subjectAltName={','.join(f'IP:{each}' for each in addresses)}\n" if addresses else ""
        (self._directory / "more").write_text(names + uses)
        self._run("req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-out", "wish")
        ours = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "more")
        self._run("x509", "-req", "-in", "wish", *ours, "-days", "2", "-out", str(certificate))
        return certificate, key

    def _key(self, file: Path) -> None:
        self._run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(file))

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self._directory, check=True, capture_output=True)


class Member:
    """One member, which keeps its data when it is killed."""

    def __init__(self, name: str, place: Somewhere, address: str, directory: Path, words: Sequence[str]) -> None:
        self.place, self.address = place, address
        self._words, self._log = ["etcd", "--data-dir", str(directory / name), "--name", name, *words], directory
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with (self._log / "etcd.log").open("ab") as log:
            self.process = subprocess.Popen([*self.place.words, *self._words], stdout=log, stderr=log)

    def send(self, signal: int) -> None:
        """Send it a signal."""
        assert self.process
        self.process.send_signal(signal)

    def kill(self) -> None:
        """Kill it, as a power cut does."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


class Store:
    """An etcd. `options` is what an engine is told."""

    def __init__(self, directory: Path, places: Sequence[tuple[Somewhere, str]], authority: Authority | None = None):
        directory.mkdir(exist_ok=True)
        scheme = "https" if authority else "http"
        peers = {f"m{number}": f"{scheme}://{address}:2380" for number, (_, address) in enumerate(places)}
        shared = ["--log-level", "error", "--initial-cluster", ",".join(f"{name}={url}" for name, url in peers.items())]
        if authority:
            certificate, key = map(str, authority.sign("member", *(address for _, address in places)))
            for prefix in ("", "peer-"):
                shared += [f"--{prefix}cert-file", certificate, f"--{prefix}key-file", key]
                shared += [f"--{prefix}trusted-ca-file", str(authority.file), f"--{prefix}client-cert-auth"]
        self.members = []
        for (name, peer), (place, address) in zip(peers.items(), places, strict=True):
            client = f"{scheme}://{address}:2379"
            words = ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
            words += ["--initial-advertise-peer-urls", peer, *shared]
            self.members.append(Member(name, place, address, directory, words))
        self.address = f"etcd{'s' if authority else ''}://{','.join(f'{address}:2379' for _, address in places)}"
        self.options: tuple[str, ...] = ("--store", self.address)
        if authority:
            certificate, key = map(str, authority.sign("engine"))
            self.options += ("--store-ca", str(authority.file), "--store-cert", certificate, "--store-key", key)

    def start(self) -> None:
        """Start every member."""
        for member in self.members:
            member.start()

    def ask(self, path: str, body: str) -> str:
        """Speak to a store without TLS."""
        url = f"http://{self.members[0].address}:2379{path}"
        return self.members[0].place.run(sys.executable, "-c", _ASK, url, body, check=False)

    def kill(self) -> None:
        """Kill every member."""
        for member in self.members:
            member.kill()
