"""Which packages an image holds, told by the databases of dpkg, apk, pip and npm in it, without running anything.

The files are an image's, hence hostile: they are read through descriptors, up to a limit, and what isn't understood is
left out.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import msgspec

from trivet.engine.snapshot.walk import Node, merged

LARGEST = 32 << 20  # bytes of one database
MOST = 100_000  # packages


_Reader = Callable[[str, str], Iterator["Package"]]


class Package(msgspec.Struct, frozen=True, order=True):
    """A package as its own manager knows it; `kind` and `qualifier` are those of a package URL (purl-spec)."""

    kind: str
    name: str
    version: str
    qualifier: str = ""
    license: str = ""

    @property
    def url(self) -> str:
        """Spell the package URL."""
        name = "/".join(quote(part, safe="") for part in self.name.split("/"))
        return f"pkg:{self.kind}/{name}@{quote(self.version, safe='')}{self.qualifier}"


def packages(layers: Iterable[str | Path]) -> list[Package]:
    """List the packages in a stack of directories, topmost first; in a fixed order."""
    found: set[Package] = set()
    release = ""
    databases: list[tuple[_Reader, str]] = []
    for node in merged([Path(layer) for layer in layers]):
        if not stat.S_ISREG(node.state.st_mode):
            continue
        if node.path in (b"etc/os-release", b"usr/lib/os-release"):
            release = _release(_text(node)) or release
        reader = next((reader for pattern, reader in _READERS if pattern.fullmatch(node.path)), None)
        if reader and len(databases) < MOST:
            databases.append((reader, _text(node)))
    for reader, text in databases:
        found.update(reader(text, release))
    return sorted(found)[:MOST]


def _text(node: Node) -> str:
    try:
        descriptor = node.open()
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(LARGEST).decode("utf-8", "replace")


def _release(text: str) -> str:
    """Find the distribution's name, for package URLs."""
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "ID":
            return re.sub(r"[^a-z0-9._-]", "", value.strip("\"'").lower())
    return ""


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Read "Key: value" paragraphs (deb822, PKG-INFO); continuation lines are left out."""
    for paragraph in text.split("\n\n"):
        pairs = (line.partition(":") for line in paragraph.splitlines() if line[:1].strip())
        fields: dict[str, str] = {}
        for key, _, value in pairs:
            fields.setdefault(key, value.strip())
        yield fields


def _dpkg(text: str, release: str) -> Iterator[Package]:
    for fields in _paragraphs(text):
        state = fields.get("Status", "install ok installed").split()
        if _named(fields, "Package", "Version") and state[-1:] == ["installed"]:
            architecture = quote(fields.get("Architecture", ""), safe="")
            name = f"{release or 'debian'}/{fields['Package']}"
            yield Package("deb", name, fields["Version"], f"?arch={architecture}" if architecture else "")


def _apk(text: str, release: str) -> Iterator[Package]:
    for fields in _paragraphs(text):
        if _named(fields, "P", "V"):
            architecture = f"?arch={quote(fields['A'], safe='')}" if fields.get("A") else ""
            yield Package("apk", f"{release or 'alpine'}/{fields['P']}", fields["V"], architecture, fields.get("L", ""))


def _pip(text: str, release: str) -> Iterator[Package]:
    fields = next(_paragraphs(text), {})
    if _named(fields, "Name", "Version"):
        name = re.sub(r"[-_.]+", "-", fields["Name"]).lower()  # PEP 503
        yield Package("pypi", name, fields["Version"], "", fields.get("License-Expression", ""))


class _Npm(msgspec.Struct, frozen=True):
    name: str
    version: str
    license: object = ""


def _npm(text: str, release: str) -> Iterator[Package]:
    try:
        found = msgspec.json.decode(text, type=_Npm)
    except (msgspec.DecodeError, RecursionError):
        return
    if found.name and found.version:
        license = found.license if isinstance(found.license, str) else ""
        yield Package("npm", found.name, found.version, "", license)


def _named(fields: Mapping[str, str], *keys: str) -> bool:
    return all(fields.get(key) for key in keys)


_READERS: tuple[tuple[re.Pattern[bytes], _Reader], ...] = (
    (re.compile(rb"var/lib/dpkg/(status|status\.d/[^/]+(?<!\.md5sums))"), _dpkg),
    (re.compile(rb"(usr/)?lib/apk/db/installed"), _apk),
    (re.compile(rb".*/(site|dist)-packages/[^/]+\.(dist-info/METADATA|egg-info/PKG-INFO|egg-info)"), _pip),
    (re.compile(rb".*/?node_modules/(@[^/]+/)?[^/]+/package\.json"), _npm),
)
