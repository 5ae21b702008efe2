"""The records of images: which there are, what they are called, which one is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from trivet.base.error import Conflict
from trivet.engine.image.model import ARCHIVE, ImageNotFound, ImageRecord, Name
from trivet.oci import reference as references
from trivet.oci.reference import MalformedReference, Reference
from trivet.store.record import Records

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})|(sha512:[0-9a-f]{1,128})")


class AmbiguousImage(Conflict):
    """An abbreviated id that several images have."""

    def __init__(self, reference: str, count: int) -> None:
        super().__init__(f"image {reference} is ambiguous: {count} ids begin with it", hint="give more digits")


class Catalog:
    """All image records of one engine. A name belongs to at most one of them."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self._table = records.table("image", ImageRecord)

    def all(self) -> list[ImageRecord]:
        """List all images, oldest first."""
        return self._table.all()

    def get(self, key: str) -> ImageRecord | None:
        """Read the image whose id is exactly this."""
        return self._table.get(key)

    def find(self, ref: str) -> tuple[ImageRecord, Name | None]:
        """Find an image by name, digest, id or the beginning of an id; tell by which name it was found.

        Raises `ImageNotFound`, `AmbiguousImage`, and `MalformedReference` for what can be neither.
        """
        digits = _ID.fullmatch(ref)
        try:
            reference = references.parse(ref).tagged()
        except MalformedReference:
            if digits is None:
                raise
        else:
            found = self._by_name(reference)
            if found is not None:
                return found
        if digits is not None and (record := self._by_id(ref)):
            return record, None
        raise ImageNotFound(ref)

    def add(self, record: ImageRecord, names: Iterable[Name]) -> ImageRecord:
        """Record an image, or give an existing one more names; each name is taken from whatever had it."""
        wanted = {name.reference: name for name in names}
        with self.records.transaction():
            for other in self._table.all():
                kept = tuple(name for name in other.names if name.reference not in wanted)
                if other.id != record.id and kept != other.names:
                    self._table.update(other.id, msgspec.structs.replace(other, names=kept))
            known = self._table.get(record.id) or record
            if known.origin == ARCHIVE:
                known = msgspec.structs.replace(known, origin=record.origin)
            kept = tuple(name for name in known.names if name.reference not in wanted)
            known = msgspec.structs.replace(known, names=(*kept, *wanted.values()))
            self._table.put(known.id, known)
        return known

    def untag(self, key: str, references: Iterable[str]) -> ImageRecord:
        """Take names away from an image."""
        gone = set(references)
        with self.records.transaction():
            record = self._table.find(key)
            names = tuple(name for name in record.names if name.reference not in gone)
            record = msgspec.structs.replace(record, names=names)
            self._table.update(key, record)
        return record

    def delete(self, key: str) -> None:
        """Forget an image."""
        self._table.delete(key)

    def _by_name(self, wanted: Reference) -> tuple[ImageRecord, Name] | None:
        for record in self._table.all():
            for name in record.names:
                if name.reference == str(wanted) or _pinned(wanted, name):
                    return record, name
        return None

    def _by_id(self, ref: str) -> ImageRecord | None:
        prefix = ref if ":" in ref else f"sha256:{ref}"
        found = [record for record in self._table.all() if record.id.startswith(prefix)]
        if len(found) > 1:
            raise AmbiguousImage(ref, len(found))
        return found[0] if found else None


def _pinned(wanted: Reference, name: Name) -> bool:
    """Tell whether `repository@digest` means what `name` names."""
    if not wanted.digest or wanted.digest not in (name.digest, name.manifest):
        return False
    return references.parse(name.reference).name == wanted.name
