"""git(1), with nothing of this machine's configuration, no prompts, no helpers, no hooks.

DIRECTORY/repository/   the bare repository
DIRECTORY/*.tar         what was taken out of it
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from trivet.base.error import Unavailable, Unsupported

PROTOCOLS = "http:https:git:ssh"
SSH = "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oProxyCommand=none"
TIMEOUT = 1800.0  # seconds for one command
MOST_OUTPUT = 64 << 20
CONFIGURATION = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.askPass": "",
    "credential.helper": "",
    "gc.auto": "0",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "60",
    "pack.threads": "1",
    "protocol.ext.allow": "never",
    "tar.umask": "0022",
    "transfer.bundleURI": "false",
}
# No attribute of a repository may change what its files are: info/attributes has the last word (gitattributes(5)).
ATTRIBUTES = "* !export-ignore !export-subst !text !eol !filter !ident !working-tree-encoding\n"
_LINK = re.compile(r"160000 commit ([0-9a-f]+)\t(.*)", re.DOTALL)


class GitFailed(Unavailable):
    """A Git command that failed, with the last of its words."""


class Git:
    """One repository below `directory`; `more` is configuration that must not be seen on a command line."""

    def __init__(self, directory: Path, more: Mapping[str, str], agent: Path | None = None) -> None:
        """`agent` is where an SSH agent listens."""
        self.directory = directory
        self._environment = _environment({**CONFIGURATION, **more})
        if agent is not None:
            self._environment["SSH_AUTH_SOCK"] = str(agent)

    async def begin(self) -> None:
        """Make an empty repository. Raises `Unsupported` where there is no Git."""
        if shutil.which("git") is None:
            raise Unsupported("ADD of a Git repository needs git on the engine's machine", hint="apt-get install git")
        await self._git("init", "--quiet", "--bare", "--template=", "--initial-branch=main")
        info = self.directory / "repository" / "info"
        info.mkdir(exist_ok=True)
        (info / "attributes").write_text(ATTRIBUTES)

    async def fetch(self, url: str, ref: str, *, shallow: bool) -> str:
        """Fetch a branch, tag or commit; return the commit's name."""
        depth = ("--depth=1",) if shallow else ()
        common = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", *depth)
        await self._git("fetch", *common, "--", url, f"+{ref}:refs/trivet/wanted")
        return await self.commit("refs/trivet/wanted")

    async def fetch_all(self, url: str) -> None:
        """Fetch all branches and tags."""
        await self._git("fetch", "--quiet", "--no-recurse-submodules", "--", url, "+refs/*:refs/fetched/*")

    async def commit(self, name: str) -> str:
        """Find a commit. Raises `GitFailed`."""
        return (await self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")).strip()

    async def archive(self, commit: str) -> Path:
        """Make a tar of a commit's files."""
        target = self.directory / f"{commit}.tar"
        await self._git("archive", "--format=tar", f"--output={target}", commit)
        return target

    async def links(self, commit: str) -> dict[str, str]:
        """List the commits of submodules, by path."""
        rows = (await self._git("ls-tree", "-r", "-z", "--full-tree", commit)).split("\0")
        return {match[2]: match[1] for match in map(_LINK.fullmatch, rows) if match}

    async def modules(self, commit: str) -> dict[str, str]:
        """Read the addresses of submodules, by path."""
        try:
            text = await self._git("config", "-z", f"--blob={commit}:.gitmodules", "--list")
        except GitFailed:
            return {}
        found: dict[str, dict[str, str]] = {}
        for row in text.split("\0"):
            key, _, value = row.partition("\n")
            section, _, field = key.rpartition(".")
            found.setdefault(section, {})[field] = value
        return {each["path"]: each["url"] for each in found.values() if "path" in each and "url" in each}

    async def keep(self, commit: str, url: str) -> None:
        """Make of the repository what a clone's .git is, at `commit`."""
        await self._git("read-tree", commit)
        await self._git("update-ref", "--no-deref", "HEAD", commit)
        await self._git("update-ref", "-d", "refs/trivet/wanted")
        await self._git("config", "core.bare", "false")
        await self._git("config", "remote.origin.url", re.sub(r"(?<=://)[^/@]+@", "", url))
        (self.directory / "repository" / "info" / "attributes").unlink()

    async def _git(self, *arguments: str) -> str:
        command = ["git", f"--git-dir={self.directory}/repository", *arguments]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            cwd=self.directory,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(TIMEOUT):
                output, problem = await process.communicate()
        except TimeoutError:
            raise GitFailed(f"git {arguments[0]} takes longer than {TIMEOUT:g} seconds") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # also the helpers it started
                await process.wait()
        if process.returncode:
            lines = problem.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
            raise GitFailed(f"git {arguments[0]} failed: {lines[-1][:400]}")
        if len(output) > MOST_OUTPUT:
            raise GitFailed(f"git {arguments[0]} says too much")
        return output.decode("utf-8", "surrogateescape")


def _environment(configuration: Mapping[str, str]) -> dict[str, str]:
    """Build the whole environment of git: of ours only the search path and the proxies."""
    ours = {name: value for name, value in os.environ.items() if name == "PATH" or name.lower().endswith("_proxy")}
    pairs: dict[str, str] = {}
    for number, (key, value) in enumerate(configuration.items()):
        pairs |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {
        **ours,
        **pairs,
        "GIT_CONFIG_COUNT": str(len(configuration)),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": PROTOCOLS,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": SSH,
        "HOME": "/nonexistent",
        "LC_ALL": "C",
    }
