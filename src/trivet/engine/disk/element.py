"""XML from strangers: a tree of elements, without documents' own entities, of bounded size and depth."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

LIMIT = 4 << 20
DEPTH = 64
MOST = 50_000


class MalformedXml(Exception):
    """What can't be read; the text says why."""


class _Tree:
    """Builds the tree; names come out without their namespaces, since vendors disagree on their versions."""

    def __init__(self) -> None:
        self._builder = TreeBuilder()
        self._depth = self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._count += 1
        if self._depth > DEPTH or self._count > MOST:
            raise MalformedXml("it is nested too deep, or too large")
        self._builder.start(_local(name), {_local(key): value for key, value in attributes.items()})

    def end(self, name: str) -> None:
        self._depth -= 1
        self._builder.end(_local(name))

    def data(self, text: str) -> None:
        self._builder.data(text)

    def close(self) -> Element:
        return self._builder.close()


def parse(raw: bytes) -> Element:
    """Parse a document. Raises `MalformedXml`; also for a document type, which could define entities."""
    if len(raw) > LIMIT:
        raise MalformedXml(f"it is larger than {LIMIT >> 20} MiB")
    tree = _Tree()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.data
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(raw, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise MalformedXml(str(error)) from error
    return tree.close()


def text(element: Element, name: str) -> str:
    """Read the text of a child; "" if there is none."""
    found = element.find(name)
    return (found.text or "").strip() if found is not None else ""


def below(element: Element, name: str) -> Iterator[Element]:
    """List the elements of a name below another, at any depth."""
    return element.iter(name)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _refuse(*arguments: object) -> None:
    raise MalformedXml("it has a document type")
