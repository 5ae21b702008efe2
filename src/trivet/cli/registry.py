"""Registries: log in and out."""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace

from trivet.cli import terminal
from trivet.cli.command import Command, Misuse, flag, option
from trivet.cli.context import Context
from trivet.client.schema import LoginRequest

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
}
