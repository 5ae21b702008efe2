"""Hooks: programs of whoever runs the container, at six points of its life (runtime-spec, "POSIX-platform Hooks").

prestart, createRuntime    on the host, when the namespaces are there and before the root is entered
createContainer            in the container's namespaces, from the host's files
startContainer             in the container, with the program's rights, just before the program
poststart, poststop        on the host, after the start and after the deletion
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from trivet.base.error import InvalidArgument, TrivetError
from trivet.launch.operation import Exec, Join, Operation, Spawn, WriteFile
from trivet.launch.spawn import LaunchError, LaunchTimeout, run
from trivet.oci.runtime import Hook


class HookFailed(TrivetError):
    """A hook that could not be run, ended with a failure or took too long."""

    def __init__(self, kind: str, hook: Hook, cause: str) -> None:
        super().__init__(f"{kind} hook {hook.path} failed: {cause}")


def check(kind: str, hooks: Iterable[Hook]) -> None:
    """Refuse what can't be a hook. Raises `InvalidArgument` with the JSON path."""
    for place, hook in enumerate(hooks):
        path = f"$.hooks.{kind}[{place}]"
        if not hook.path.startswith("/"):
            raise InvalidArgument(f"the path {hook.path!r} is not absolute - at `{path}.path`")
        if hook.timeout is not None and hook.timeout <= 0:
            raise InvalidArgument(f"the timeout is not above 0 - at `{path}.timeout`")
        if any("\0" in word for word in (hook.path, *hook.args, *hook.env)):
            raise InvalidArgument(f"a word holds a NUL character - at `{path}`")


def on_host(kind: str, hook: Hook, state: bytes, directory: str) -> None:
    """Run a hook here, with the state on its input. Raises `HookFailed`."""
    import subprocess  # only here: few containers have hooks, and every start would pay

    environment = dict(word.split("=", 1) for word in hook.env if "=" in word)
    try:
        done = subprocess.run(
            list(hook.args) or [hook.path],
            executable=hook.path,
            input=state,
            env=environment,
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=hook.timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise HookFailed(kind, hook, f"it took longer than {hook.timeout} s") from error
    except OSError as error:
        raise HookFailed(kind, hook, error.strerror or str(error)) from error
    _judge(kind, hook, done.returncode, done.stderr)


def in_namespaces(kind: str, hook: Hook, state: bytes, pid: int, flags: int, joins: Iterable[WriteFile]) -> None:
    """Run a hook of the host's in the namespaces of a process. Raises `HookFailed`."""
    words = hook.args or (hook.path,)
    steps = [Spawn(), *joins, Join(pid, flags), Exec((hook.path, *words[1:]), hook.env)]
    task(kind, hook, steps, state)


def task(kind: str, hook: Hook, steps: list[Operation], state: bytes) -> None:
    """Carry out a plan that ends with the hook. Raises `HookFailed`."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        done = run(steps, input=state, output=nowhere, timeout=hook.timeout)
    except LaunchTimeout as error:
        raise HookFailed(kind, hook, f"it took longer than {hook.timeout} s") from error
    except LaunchError as error:
        raise HookFailed(kind, hook, error.message) from error
    finally:
        os.close(nowhere)
    _judge(kind, hook, done.code, done.error_output)


def _judge(kind: str, hook: Hook, code: int, words: bytes) -> None:
    if code:
        said = words.decode(errors="replace").strip()[-300:]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise HookFailed(kind, hook, f"{how}{': ' if said else ''}{said}")
