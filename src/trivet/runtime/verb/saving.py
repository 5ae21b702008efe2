"""Arguments that checkpoint and restore have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

from trivet.base.error import Unsupported
from trivet.runtime.checkpoint import Options


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("--image-path", type=Path, default=Path("checkpoint"), help="directory of the images")
    parser.add_argument("--work-path", type=Path, help="directory of CRIU's log")
    parser.add_argument("--tcp-established", action="store_true", help="connections too")
    parser.add_argument("--ext-unix-sk", action="store_true", help="unix sockets with an end outside too")
    parser.add_argument("--shell-job", action="store_true", help="a session whose leader is outside too")
    parser.add_argument("--lazy-pages", action="store_true", help="refused")
    parser.add_argument("--file-locks", action="store_true", help="file locks too")
    parser.add_argument("--manage-cgroups-mode", choices=("soft", "full", "strict", "ignore"), default="soft")
    parser.add_argument("--empty-ns", action="append", default=[], choices=("network",), help="leave its content out")
    parser.add_argument("--auto-dedup", action="store_true", help="keep pages once among checkpoints")


def read(arguments: argparse.Namespace) -> Options:
    """Read them. Raises `Unsupported`."""
    for name in ("lazy_pages", "page_server", "status_fd"):
        if getattr(arguments, name, None):
            raise Unsupported(f"--{name.replace('_', '-')} is not supported", hint="leave it out")
    return Options(
        program=arguments.criu,
        images=arguments.image_path,
        work=arguments.work_path,
        tcp=arguments.tcp_established,
        sockets=arguments.ext_unix_sk,
        job=arguments.shell_job,
        locks=arguments.file_locks,
        groups=arguments.manage_cgroups_mode,
        empty_network="network" in arguments.empty_ns,
        dedup=arguments.auto_dedup,
    )
