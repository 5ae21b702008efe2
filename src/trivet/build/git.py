"""Git repositories as trees: `URL[#REF[:SUBDIRECTORY]]`, or `URL?ref=…&subdir=…`.

Nothing is ever checked out: commits become tars (git-archive(1)), and those become trees in memory, where links
have nothing to lead out to. So no hook, filter or attribute of the repository runs or counts; the machine's own
Git configuration isn't read; only the protocols below are spoken, by submodules too (CVE-2017-1000117,
CVE-2018-17456).
"""

from __future__ import annotations

import base64
import posixpath
import re
import tarfile
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec

from trivet.base.thread import in_thread
from trivet.build.error import BuildError, ContextError
from trivet.build.git_command import Git, GitFailed
from trivet.build.mount import RunMount
from trivet.build.secret import agent_of
from trivet.build.session import Workplace
from trivet.build.tree import Tree

MOST_SUBMODULES = 200
DEPTH = 8
TOKEN, HEADER = "GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"  # the secrets that are used for https, as BuildKit calls them
_SCP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^-].*")
_HOST = re.compile(r"(?:[^@/\s-][^@/\s]*@)?(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:]+\])(?::\d+)?")
_REF = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./@+-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BEGINNING = re.compile(r"[0-9a-f]{1,64}")
_DIGEST = re.compile(r"sha[0-9]+:[0-9a-f]{64,128}")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A repository, what to take of it ("" is its HEAD), and below which directory."""

    url: str
    ref: str = ""
    subdirectory: str = ""
    checksum: str = ""
    submodules: bool = True
    keep: bool = False


def is_repository(source: str) -> bool:
    """Tell whether a source names a Git repository."""
    if source.startswith(("git://", "ssh://")) or _SCP.fullmatch(source):
        return True
    return source.startswith(("http://", "https://")) and urlsplit(source).path.endswith(".git")


def parse(source: str) -> Place:
    """Read a repository's address. Raises `BuildError`."""
    url, _, fragment = source.partition("#")
    url, _, query = url.partition("?")
    ref, _, subdirectory = fragment.partition(":")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = options.keys() - {"ref", "branch", "tag", "commit", "checksum", "subdir", "submodules", "keep-git-dir"}
    if unknown:
        raise BuildError(f"Git address {url} has an unknown option {min(unknown)}")
    checksum = options.get("checksum") or options.get("commit") or ""
    named = {"ref": "", "branch": "refs/heads/", "tag": "refs/tags/"}
    ref = ref or next((f"{where}{options[name]}" for name, where in named.items() if options.get(name)), checksum)
    _check(url, ref)
    return Place(
        url=url,
        ref=ref,
        subdirectory=subdirectory or options.get("subdir", ""),
        checksum=checksum,
        submodules=options.get("submodules", "true").lower() in ("", "true", "1"),
        keep=options.get("keep-git-dir", "false").lower() in ("", "true", "1"),
    )


def is_whole(checksum: str) -> bool:
    """Tell whether a checksum names one content and no other: a digest, or all of a commit's name."""
    return bool(_COMMIT.fullmatch(checksum) or _DIGEST.fullmatch(checksum))


def _check(url: str, ref: str) -> None:
    """Refuse what Git, ssh or a transport helper could take for something else than an address."""
    scheme, separator, rest = url.partition("://")
    known = separator and scheme in ("http", "https", "git", "ssh") and _HOST.fullmatch(rest.partition("/")[0])
    if not (known or (not separator and _SCP.fullmatch(url))) or any(char <= " " for char in url):
        hint = "use https://, ssh://, git:// or git@HOST:PATH"
        raise BuildError(f"Git address {url[:200]!r} is not allowed", hint=hint)
    if ref and (not _REF.fullmatch(ref) or ".." in ref):
        raise BuildError(f"Git reference {ref[:80]!r} is not allowed")


async def fetch(session: Workplace, source: str, *, checksum: str = "", keep_git_dir: bool = False) -> tuple[Tree, str]:
    """Fetch a repository; return its tree and the path of the wanted directory in it."""
    place = parse(source)
    async with AsyncExitStack() as undo:
        fetching = _Fetching(session, undo)
        tree = Tree(place.url)
        await fetching.into(tree, "", place, checksum or place.checksum, keep=keep_git_dir or place.keep)
    try:
        top = tree.resolve(place.subdirectory)
    except KeyError:
        raise BuildError(f"{place.url} has no directory {place.subdirectory}") from None
    if tree.nodes[top].kind != "directory":
        raise BuildError(f"{place.subdirectory} of {place.url} is not a directory")
    return tree, top


class _Fetching:
    """One repository with its submodules."""

    def __init__(self, session: Workplace, undo: AsyncExitStack) -> None:
        self._session = session
        self._undo = undo
        self._count = 0

    async def into(self, tree: Tree, path: str, place: Place, checksum: str, *, keep: bool, depth: int = 0) -> None:
        """Put a commit's files into a tree at `path`."""
        self._count += 1
        if depth > DEPTH or self._count > MOST_SUBMODULES:
            raise ContextError(f"{place.url} has too many submodules, or too deep ones")
        directory = self._undo.enter_context(tempfile.TemporaryDirectory(dir=self._session.work, prefix="git-"))
        git = Git(Path(directory), await self._credentials(place), await self._agent(place))
        await git.begin()
        commit = await _commit(git, place)
        if checksum and not (_BEGINNING.fullmatch(checksum) and commit.startswith(checksum)):
            raise BuildError(f"{place.url} is at commit {commit}, not at the --checksum {checksum[:80]}")
        await self._add(tree, path, await git.archive(commit), place.url)
        if place.submodules:
            await self._submodules(tree, path, git, commit, place.url, depth)
        if keep:
            await git.keep(commit, place.url)
            await self._add(tree, posixpath.join(path, ".git"), await in_thread(_packed, git.directory), place.url)

    async def _add(self, tree: Tree, path: str, archive: Path, name: str) -> None:
        with archive.open("rb") as file:
            found = await in_thread(self._session.spool.take, file, name, anonymous=True)
        for inner, node in found.walk(""):
            if inner or path:
                tree.add(posixpath.join(path, inner), node)

    async def _submodules(self, tree: Tree, path: str, git: Git, commit: str, url: str, depth: int) -> None:
        links = await git.links(commit)
        addresses = await git.modules(commit) if links else {}
        for inner, wanted in links.items():
            address = addresses.get(inner)
            if address is None:
                raise ContextError(f"{url} has a submodule {inner} without an address in .gitmodules")
            address = _joined(url, address)
            _check(address, "")
            place = Place(url=address, ref=wanted)
            await self.into(tree, posixpath.join(path, inner), place, "", keep=False, depth=depth + 1)

    async def _agent(self, place: Place) -> Path | None:
        """Lead ssh to the caller's agent."""
        if "default" not in self._session.request.ssh or place.url.startswith(("http", "git://")):
            return None
        path = self._session.tools.offered.place(self._undo)
        mount = RunMount(kind="ssh", target="", id="default", mode=0o600)
        await agent_of(self._session.caller, mount, ["default"], path, self._undo)
        return path

    async def _credentials(self, place: Place) -> dict[str, str]:
        """Give Git the caller's header or token for https, by its environment, for that host only."""
        parts, offered = urlsplit(place.url), self._session.request.secrets
        if parts.scheme != "https" or not parts.hostname:
            return {}
        names = [f"{word}{end}" for end in (f".{parts.hostname}", "") for word in (HEADER, TOKEN)]
        name = next((each for each in names if each in offered), None)
        if name is None:
            return {}
        secret = (await self._session.caller.secret(name)).strip()
        value = secret.decode("utf-8", "replace")
        if name.startswith(TOKEN):
            value = f"basic {base64.b64encode(b'x-access-token:' + secret).decode()}"
        elif not value.isprintable():
            raise BuildError(f"secret {name} holds characters that no header may have")
        port = f":{parts.port}" if parts.port else ""
        return {f"http.https://{parts.hostname}{port}/.extraHeader": f"Authorization: {value}"}


async def _commit(git: Git, place: Place) -> str:
    """Fetch what was asked for, as little as the server allows, and name its commit."""
    wanted = place.ref or "HEAD"
    try:
        return await git.fetch(place.url, wanted, shallow=True)
    except GitFailed:
        pass  # an old server gives no single commit, and plain files no part of a history
    if not _COMMIT.fullmatch(wanted):
        return await git.fetch(place.url, wanted, shallow=False)
    await git.fetch_all(place.url)
    return await git.commit(wanted)


def _joined(base: str, address: str) -> str:
    """Resolve a submodule's address that is relative to its repository's."""
    if not address.startswith(("./", "../")):
        return address
    head, separator, path = base.partition("://")
    if not separator:
        head, separator, path = base.partition(":")
        return f"{head}:{posixpath.normpath(posixpath.join(path, address))}"
    host, _, path = path.partition("/")
    return f"{head}://{host}/{posixpath.normpath(posixpath.join('/', path, address)).lstrip('/')}"


def _packed(directory: Path) -> Path:
    """Make a tar of a repository's own files."""
    target = directory / "kept.tar"
    with tarfile.open(target, "w") as archive:
        archive.add(directory / "repository", arcname=".")
    return target
