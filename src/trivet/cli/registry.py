"""Registries: log in and out."""

from __future__ import annotations

import getpass
import os
import sys
from argparse import Namespace

from trivet.cli import terminal, value
from trivet.cli.argument import DIRECTORY, FILE
from trivet.cli.command import Command, Misuse, flag, option
from trivet.cli.context import Context
from trivet.client.schema_image import LoginRequest

LONGEST = 64 << 10  # of a password; tokens can be long


def login(context: Context, args: Namespace) -> int:
    """Log in."""
    user = args.username or _ask_user()
    password = _read_password() if args.password_stdin else _ask_password()
    file = context.client.registries.login(LoginRequest(registry=args.registry, user=user, password=password))
    print(f"login succeeded; the password is in {file}")
    return 0


def logout(context: Context, args: Namespace) -> int:
    """Log out."""
    known = context.client.registries.logout(args.registry)
    print("login removed" if known else "there was no login")
    return 0


def serve(context: Context, args: Namespace) -> int:
    """Become the registry's process: the command itself knows nothing of how one works."""
    words = ["--root", args.root, "--listen", args.listen]
    words += ["--collect-every", str(args.collect_every), "--grace", str(args.grace)]
    for name in ("tls_certificate", "tls_key", "htpasswd", "config", "metrics", "s3"):
        if getattr(args, name):
            words += [f"--{name.replace('_', '-')}", getattr(args, name)]
    words += [word for name in args.name for word in ("--name", name)]
    words += ["--insecure"] if args.insecure else []
    os.execv(sys.executable, [sys.executable, "-m", "trivet.registry.server.main", *words])


def ca(context: Context, args: Namespace) -> int:
    """Print the registry's own authority, for clients on other machines to trust."""
    os.execv(sys.executable, [sys.executable, "-m", "trivet.registry.server.authority", "--root", args.root])


def _read_password() -> str:
    password = sys.stdin.read(LONGEST).rstrip("\r\n")
    if not password:
        raise Misuse("standard input holds no password")
    return password


def _ask_password() -> str:
    if not terminal.is_terminal(0):
        raise Misuse("standard input is no terminal to ask for a password", hint="use --password-stdin")
    return getpass.getpass("password: ")


def _ask_user() -> str:
    if not terminal.is_terminal(0):
        raise Misuse("--username is missing")
    return input("user name: ")


REGISTRY = option("registry", metavar="REGISTRY", nargs="?", default="", help="HOST[:PORT] (default: docker.io)")

COMMANDS = {
    "login": Command(
        login,
        (
            option("-u", "--username", metavar="NAME", default="", help="user name; asked for otherwise"),
            flag("--password-stdin", help="read the password from standard input"),
            REGISTRY,
        ),
        about="The engine tries name and password, and keeps them in its ~/.docker/config.json.",
        examples=(("trivet login -u me --password-stdin localhost:5000 < token", ""),),
    ),
    "logout": Command(logout, (REGISTRY,), examples=(("trivet logout localhost:5000", ""),)),
    "serve": Command(
        serve,
        (
            option("--root", metavar="DIR", required=True, help="where everything is kept", complete=DIRECTORY),
            option("--listen", metavar="HOST:PORT", default="127.0.0.1:5000", help="default: 127.0.0.1:5000"),
            option("--tls-certificate", metavar="FILE", default="", help="certificate chain, PEM", complete=FILE),
            option("--tls-key", metavar="FILE", default="", help="its private key, PEM", complete=FILE),
            option("--htpasswd", metavar="FILE", default="", help="names and bcrypt hashes", complete=FILE),
            option("--config", metavar="FILE", default="", help="rights, limits, ...: TOML", complete=FILE),
            option("--s3", metavar="URL", default="", help="keep blobs at https://HOST/BUCKET[/PREFIX]"),
            option("--metrics", metavar="HOST:PORT", default="", help="tell Prometheus what was counted"),
            option(
                "--name",
                metavar="HOST",
                action="append",
                default=[],
                help="a further name or address for the registry's own certificate (repeatable)",
            ),
            flag("--insecure", help="plain http"),
            option(
                "--collect-every",
                metavar="TIME",
                type=value.seconds,
                default=3600,
                help="how often garbage is collected (default: 1h)",
            ),
            option(
                "--grace",
                metavar="TIME",
                type=value.seconds,
                default=3600,
                help="how long a blob no manifest mentions is kept (default: 1h)",
            ),
        ),
        about="Runs until SIGTERM, beside the engine; over TLS with a certificate of its own unless another is given.",
        examples=(
            ("trivet registry serve --root /var/lib/registry", "for this machine"),
            (
                "trivet registry serve --root /var/lib/registry --listen 0.0.0.0:443 --htpasswd users",
                "for others, who need what trivet registry ca prints",
            ),
        ),
    ),
    "ca": Command(
        ca,
        (option("--root", metavar="DIR", required=True, help="the registry's directory", complete=DIRECTORY),),
        about="Made by the first start, or by this. docker and podman look for it in certs.d/HOST:PORT/ca.crt.",
        examples=(("trivet registry ca --root /var/lib/registry > ca.crt", ""),),
    ),
}
