"""The machine's own package sources: where its administrator decided that packages come from.

Both formats of sources.list(5) are read; what is written is deb822.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from pathlib import Path

import msgspec

ETC = Path("/etc/apt")
LISTS = Path("/var/lib/apt/lists")
SETTINGS = re.compile(r'(Acquire::(?:Check-Valid-Until|Check-Date|https?::Proxy(?:::[^ ]+)?)) "([^"]*)";')


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One source of binary packages; `options` are further deb822 fields (Signed-By, Trusted)."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    options: dict[str, str] = {}

    def deb822(self) -> str:
        """Spell the source as a deb822 stanza."""
        fields = {
            "Types": "deb",
            "URIs": " ".join(self.uris),
            "Suites": " ".join(self.suites),
            "Components": " ".join(self.components),
            **self.options,
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items())


def sources(etc: Path = ETC) -> list[Source]:
    """Read all sources of binary packages that are switched on, in the order apt reads them."""
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    found: list[Source] = []
    for file in files:
        if file.suffix in (".list", ".sources") and file.is_file():
            text = file.read_text(errors="replace")
            found += _stanzas(text) if file.suffix == ".sources" else _lines(text)
    return found


def for_suite(all_sources: Iterable[Source], own: str, wanted: str) -> list[Source]:
    """Keep the sources of suite `own` and its -updates and -security, renamed to suite `wanted`."""
    kept = []
    for source in all_sources:
        suites = tuple(wanted + suite[len(own) :] for suite in source.suites if _belongs(suite, own, wanted))
        if suites:
            kept.append(msgspec.structs.replace(source, suites=suites))
    return kept


def settings() -> list[str]:
    """List the settings without which the machine's sources can't be used: proxies, validity checks."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return [f'{name} "{value}";' for name, value in SETTINGS.findall(dump) if value]


def release_time(suites: Iterable[str], lists: Path = LISTS) -> int | None:
    """Tell when the newest of the suites was published, as far as the machine's package lists know (Unix time)."""
    times = []
    for suite in suites:
        for file in lists.glob(f"*_dists_{suite.replace('/', '_')}_*Release"):
            match = re.search(r"^Date: (.+)$", file.read_text(errors="replace"), re.MULTILINE)
            if match:
                times.append(int(parsedate_to_datetime(match[1].replace(" UTC", " +0000")).timestamp()))
    return max(times, default=None)


def _belongs(suite: str, own: str, wanted: str) -> bool:
    if wanted in ("sid", "unstable"):
        return suite == own
    return suite in (own, f"{own}-updates", f"{own}-security", f"{own}/updates")


def _stanzas(text: str) -> list[Source]:
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        fields = _fields(paragraph)
        enabled = fields.pop("enabled", "yes").lower() in ("yes", "true", "1")
        if enabled and "deb" in fields.get("types", "").split():
            found.append(
                Source(
                    uris=tuple(fields.get("uris", "").split()),
                    suites=tuple(fields.get("suites", "").split()),
                    components=tuple(fields.get("components", "").split()),
                    options=_options(fields),
                )
            )
    return found


def _fields(paragraph: str) -> dict[str, str]:
    """Read a stanza; names in lower case, continuation lines kept (a key may be written into Signed-By)."""
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace() and name:
            fields[name] += f"\n{line}"
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _lines(text: str) -> list[Source]:
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if match:
            options, uri, suite, components = match.groups()
            pairs = dict(word.partition("=")[::2] for word in (options or "").split())
            found.append(
                Source(uris=(uri,), suites=(suite,), components=tuple(components.split()), options=_options(pairs))
            )
    return found


def _options(fields: dict[str, str]) -> dict[str, str]:
    names = {"signed-by": "Signed-By", "trusted": "Trusted"}
    return {names[name]: value for name, value in fields.items() if name in names}
