"""Catalogues of disk images in the simplestreams format, as distributions and Incus publish them.

    URL/streams/v1/index.json    which documents list images; .sjson: signed (an OpenPGP clear text)
    URL/streams/v1/images.json   products, their versions, and of each its files with size and SHA-256

The connection or, with a keyring, the signature is why the documents are believed; images are by their checksum.
"""

from __future__ import annotations

import asyncio
import posixpath
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from trivet.base.error import Corrupt, Denied, InvalidArgument, NotFound, Unsupported
from trivet.client.schema_machine import CatalogueImage
from trivet.engine.machine import download
from trivet.engine.machine.download import Wanted
from trivet.oci import platform as platforms

PREFIX = "stream:"
_INDEX = "streams/v1/index.json"
_LIMIT = 64 << 20
_DOCUMENTS = 8
_KINDS = {"disk-kvm.img": "qcow2", "disk1.img": "qcow2", "uefi1.img": "qcow2", "disk.img": "qcow2", "root.raw": "raw"}
"""Kinds of files that are disks, and how they are written; the first that a product has is taken."""
_DIGITS = 64
T = TypeVar("T")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A disk image of a catalogue: what it is called, and its file."""

    names: tuple[str, ...]
    title: str
    version: str
    format: str
    file: Wanted


class Index(msgspec.Struct, frozen=True):
    """The entry document."""

    index: dict[str, dict[str, Any]]


class Item(msgspec.Struct, frozen=True):
    """A file of a version."""

    ftype: str = ""
    path: str = ""
    sha256: str = ""
    size: int = 0


class Version(msgspec.Struct, frozen=True):
    """One build of a product."""

    items: dict[str, Item] = {}


class Product(msgspec.Struct, frozen=True):
    """What is published again and again."""

    arch: str = ""
    aliases: str = ""
    os: str = ""
    release: str = ""
    release_title: str = ""
    version: str = ""
    variant: str = ""
    versions: dict[str, Version] = {}


class Products(msgspec.Struct, frozen=True):
    """A list of products."""

    products: dict[str, Product]


async def images(url: str, keyring: str = "") -> list[Found]:
    """List the newest disk image of each product for this machine's architecture.

    Raises `Unavailable`, `NotFound`, `Corrupt`, and `Denied` for what the keyring's owners haven't signed.
    """
    base = _base(url, keyring)
    index = _decode(await _read(base, _INDEX, keyring), Index, base)
    paths = [str(each.get("path", "")) for each in index.index.values() if each.get("datatype") == "image-downloads"]
    found: list[Found] = []
    for path in sorted(set(paths))[:_DOCUMENTS]:
        listed = _decode(await _read(base, path, keyring), Products, base)
        found += _newest(base, listed)
    return sorted(found, key=lambda each: each.names)


async def find(url: str, name: str, keyring: str = "") -> Found:
    """Find an image by one of its names. Raises `NotFound`, and what `images` raises."""
    for found in await images(url, keyring):
        if name in found.names:
            return found
    raise NotFound(f"catalogue {url} has no disk image {name}", hint=f"trivet vm images --catalogue {url}")


def view(found: Found) -> CatalogueImage:
    """Show an image as the API does."""
    return CatalogueImage(
        names=list(found.names), title=found.title, version=found.version, size=found.file.size, url=found.file.url
    )


def _newest(base: str, listed: Products) -> Iterator[Found]:
    host = platforms.host().architecture
    wanted = {host, platforms.DEBIAN.get(host, host)}
    for key, product in listed.products.items():
        if product.arch not in wanted:
            continue
        for number, version in sorted(product.versions.items(), reverse=True):
            by_kind = {item.ftype: item for item in version.items.values()}
            kind = next((each for each in _KINDS if each in by_kind), "")
            if kind:
                yield _found(base, key, product, number, _KINDS[kind], by_kind[kind])
                break


def _found(base: str, key: str, product: Product, number: str, form: str, item: Item) -> Found:
    if len(item.sha256) != _DIGITS or item.size <= 0:
        raise Corrupt(f"catalogue {base} gives no checksum or size of {key}")
    url = _below(base, item.path)
    aliases = [each.strip() for each in product.aliases.split(",") if each.strip()]
    system = product.os.lower()
    names = [each if "/" in each else f"{system}/{each}" for each in aliases]
    title = (product.os, product.release_title or product.release, product.variant)
    return Found(
        names=tuple(dict.fromkeys([*names, *aliases, key])),
        title=" ".join(each for each in title if each),
        version=number,
        format=form,
        file=msgspec.structs.replace(download.wanted(url, f"sha256:{item.sha256}"), size=item.size),
    )


def _base(url: str, keyring: str) -> str:
    """Refuse a catalogue that anybody on the way could have written."""
    secure = urlsplit(download.address(url)).scheme == "https"
    if not secure and not keyring:
        raise InvalidArgument(f"catalogue {url} is neither read over https nor signed", hint="--keyring FILE")
    if keyring and not (keyring.startswith("/") and Path(keyring).is_file()):
        raise InvalidArgument(f"keyring {keyring} is no file of the engine's host, by its absolute path")
    return url.rstrip("/") + "/"


def _below(base: str, path: str) -> str:
    """Name a file of the catalogue; what would lie elsewhere is refused."""
    plain = posixpath.normpath(path)
    if not path or plain.startswith(("/", "..")) or "://" in path or "\\" in path:
        raise Corrupt(f"catalogue {base} names a file {path[:100]!r}, which cannot be")
    return base + plain


async def _read(base: str, path: str, keyring: str) -> bytes:
    if not keyring:
        return await download.small(_below(base, path), _LIMIT)
    signed = await download.small(_below(base, path.removesuffix(".json") + ".sjson"), _LIMIT)
    return await asyncio.to_thread(_verified, signed, Path(keyring), base)


def _verified(signed: bytes, keyring: Path, base: str) -> bytes:
    """Give what was signed. Raises `Denied`."""
    tool = shutil.which("gpgv")
    if tool is None:
        raise Unsupported("cannot check a catalogue's signature: gpgv is not installed", hint="apt-get install gpgv")
    with tempfile.TemporaryDirectory(prefix="trivet-") as scratch:
        source, target = Path(scratch, "signed"), Path(scratch, "plain")
        source.write_bytes(signed)
        done = subprocess.run(
            [tool, "--keyring", str(keyring), "--output", str(target), str(source)], capture_output=True, check=False
        )
        if done.returncode or not target.exists():
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no signature"]
            raise Denied(f"catalogue {base} is not signed by an owner of {keyring}: {said[-1]}")
        return target.read_bytes()


def _decode(raw: bytes, kind: type[T], base: str) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise Corrupt(f"catalogue {base} cannot be read: {error}") from error
