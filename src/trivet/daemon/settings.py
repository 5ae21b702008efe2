"""Where an engine keeps its things and where it listens: flags, environment, defaults, in this order."""

from __future__ import annotations

import argparse
import ipaddress
import os
from pathlib import Path

import msgspec

from trivet.base.error import TrivetError
from trivet.daemon import budget as limits
from trivet.engine.capacity.model import Budget
from trivet.engine.image.release import LayerBlobs
from trivet.engine.image.trust import DEFAULT as POLICY
from trivet.engine.snapshot.layer import Kind
from trivet.store.etcd import Etcd, connect

DEFAULT_ROOT = Path("/var/lib/trivet")
MOST_SPARES = 16

FIELDS = (
    # flag, environment, default, help
    ("root", "TRIVET_ROOT", str(DEFAULT_ROOT), "directory for images, volumes and records"),
    ("run-dir", "TRIVET_RUN_DIR", "/run/trivet", "directory for sockets and what a reboot may take"),
    ("cache-dir", "TRIVET_CACHE_DIR", "/var/cache/trivet", "directory for what can be fetched again (guest kernels)"),
    ("listen", "TRIVET_LISTEN", "", "unix:///PATH to listen on (default: trivet.sock in the run directory)"),
    (
        "docker-listen",
        "TRIVET_DOCKER_LISTEN",
        "",
        "unix:///PATH to speak Docker's API on (default: docker.sock in the run directory), or none",
    ),
    (
        "snapshotter",
        "TRIVET_SNAPSHOTTER",
        "overlay",
        "how images are kept on disk: overlay (unpacked), erofs (one file per layer, mounted), copy (anywhere)",
    ),
    (
        "layer-blobs",
        "TRIVET_LAYER_BLOBS",
        "keep",
        "layers of registries once they are unpacked: keep them as they came, too, or discard that (fetched again "
        "where it is wanted, by push and save)",
    ),
    ("policy", "TRIVET_POLICY", str(POLICY), "containers-policy.json(5) file: which images may be used"),
    ("store", "TRIVET_STORE", "", "etcd://HOST:PORT[,HOST:PORT] (etcds:// for TLS): the store of a fleet of hosts"),
    ("store-ca", "TRIVET_STORE_CA", "", "certificate authority of the store"),
    ("store-cert", "TRIVET_STORE_CERT", "", "our certificate for the store"),
    ("store-key", "TRIVET_STORE_KEY", "", "its key"),
    ("store-ttl", "TRIVET_STORE_TTL", "30", "seconds until the others forget this host's instances when it is silent"),
    ("advertise-addr", "TRIVET_ADVERTISE_ADDR", "", "address at which other hosts of the fleet reach this one"),
    ("journal", "TRIVET_JOURNAL", "/run/systemd/journal/socket", "where journald listens, for --log-driver journald"),
    ("spares", "TRIVET_SPARES", "1", "machines and containers kept ready of what was started last, 0 for none"),
    ("log-level", "TRIVET_LOG_LEVEL", "info", "debug, info, warning or error"),
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's settings."""

    root: Path
    run_dir: Path
    cache_dir: Path
    listen: Path
    docker_listen: Path | None
    log_level: str
    snapshotter: Kind = Kind.OVERLAY
    layer_blobs: LayerBlobs = LayerBlobs.KEEP
    spares: int = 0
    policy: Path = POLICY
    journal: str = "/run/systemd/journal/socket"
    uninstall: bool = False
    store: Etcd | None = None
    store_ttl: int = 30
    advertise: str = ""
    budget: Budget


def parse(arguments: list[str] | None = None) -> Settings:
    """Read the command line and the environment; exits with status 2 for wrong usage, as argparse does."""
    parser = argparse.ArgumentParser(prog="trivetd", description="The trivet engine.")
    for flag, variable, default, text in FIELDS:
        parser.add_argument(f"--{flag}", default=os.environ.get(variable, default), help=f"{text} [{variable}]")
    limits.add(parser)
    parser.add_argument(
        "--uninstall",
        action="store_true",
        help="take bridges, rules, namespaces and control groups off the host, and end; images and volumes stay",
    )
    values = parser.parse_args(arguments)
    run = Path(values.run_dir).absolute()
    listen = _socket(parser, values.listen, run / "trivet.sock")
    docker_listen = (
        None if values.docker_listen == "none" else _socket(parser, values.docker_listen, run / "docker.sock")
    )
    if values.log_level not in ("debug", "info", "warning", "error"):
        parser.error(f"unknown log level {values.log_level}")
    if values.snapshotter not in tuple(Kind):
        parser.error(f"unknown snapshotter {values.snapshotter}: one of {', '.join(Kind)}")
    if values.layer_blobs not in tuple(LayerBlobs):
        parser.error(f"unknown choice {values.layer_blobs} for layer blobs: one of {', '.join(LayerBlobs)}")
    if not values.store_ttl.isdigit() or int(values.store_ttl) < 2:
        parser.error(f"cannot keep a lease of {values.store_ttl} seconds: 2 and more are possible")
    if not values.spares.isdigit() or int(values.spares) > MOST_SPARES:
        parser.error(f"cannot keep {values.spares!r} instances ready: 0 to {MOST_SPARES} are possible")
    if values.advertise_addr and not _is_address(values.advertise_addr):
        parser.error(f"{values.advertise_addr!r} is not an IP address")
    try:
        budget = limits.budget(values)
    except ValueError as error:
        parser.error(str(error))
    return Settings(
        root=Path(values.root).absolute(),
        run_dir=run,
        cache_dir=Path(values.cache_dir).absolute(),
        listen=listen,
        docker_listen=docker_listen,
        log_level=values.log_level,
        policy=Path(values.policy).absolute(),
        journal=values.journal,
        snapshotter=Kind(values.snapshotter),
        layer_blobs=LayerBlobs(values.layer_blobs),
        spares=int(values.spares),
        uninstall=values.uninstall,
        store=_store(parser, values),
        store_ttl=int(values.store_ttl),
        advertise=values.advertise_addr,
        budget=budget,
    )


def _store(parser: argparse.ArgumentParser, values: argparse.Namespace) -> Etcd | None:
    if not values.store:
        return None
    try:
        return connect(values.store, authority=values.store_ca, certificate=values.store_cert, key=values.store_key)
    except TrivetError as error:
        parser.error(error.message)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _socket(parser: argparse.ArgumentParser, address: str, default: Path) -> Path:
    path = Path(address.removeprefix("unix://")) if address else default
    if not path.is_absolute():
        parser.error(f"cannot listen on {address}: only unix:///PATH is supported")
    return path
