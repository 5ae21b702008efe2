"""Enforcing the policy: when an image comes, and every time one is used.

Signatures are kept with the image's digest, so that a use is judged by the policy of that moment, without a network.
An image made here (built, committed, imported) is trusted as what it was made from was.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from trivet.engine.image import policy, signature
from trivet.engine.image.model import ARCHIVE, BUILT, ImageRecord, Name
from trivet.engine.image.policy import ImageRefused, Policy, Requirement
from trivet.engine.image.signature import Signature
from trivet.oci import reference as references
from trivet.oci.reference import MalformedReference, Reference
from trivet.registry.client import RegistryClient
from trivet.store.record import Records

DEFAULT = Path("/etc/trivet/policy.json")


class Signed(msgspec.Struct, frozen=True):
    """What is known to be signed: a digest and its signatures."""

    id: str
    signatures: tuple[Signature, ...]


class Trust:
    """One engine's policy: the file `path`, read at every use; without one everything goes.

    A file that was named must be there; the `DEFAULT` may be missing.
    """

    def __init__(self, records: Records, path: Path | None = None) -> None:
        self._path = path
        self._table = records.table("signature", Signed)

    async def admit(
        self, registry: RegistryClient, repository: str, reference: Reference, digests: tuple[str, ...]
    ) -> None:
        """Judge an image that is being pulled, before its layers come. Raises `ImageRefused`, `BrokenPolicy`."""
        found = self._policy()
        if found is None:
            return
        requirements = found.requirements("docker", reference)
        if any(requirement.type == "sigstoreSigned" for requirement in requirements):
            for digest in dict.fromkeys(digests):
                if fetched := await signature.fetch(registry, repository, digest):
                    self._table.put(digest, Signed(digest, tuple(fetched)))
        self._judge(requirements, reference, digests, reference.familiar)

    def admit_archive(self, transport: str, subject: str) -> None:
        """Judge an archive that is being loaded: nothing in it proves who made it."""
        found = self._policy()
        if found and any(each.type != "insecureAcceptAnything" for each in found.requirements(transport)):
            raise ImageRefused(subject, self._shown, f"{transport} archives are not accepted")

    def use(self, record: ImageRecord, name: Name | None, asked: str) -> None:
        """Judge an image that is to be run or built upon, asked for by this name (None: its id)."""
        found = self._policy()
        if found is None or record.origin == BUILT:
            return
        if record.origin == ARCHIVE:
            self.admit_archive("docker-archive", asked)
            return
        names = [name] if name else list(record.names)
        refusals = [refusal for each in names if (refusal := self._refusal(found, each, asked))]
        if not names:
            raise ImageRefused(asked, self._shown, "it has no name that tells where it is from")
        if len(refusals) == len(names):
            raise refusals[0]

    def use_again(self, record: ImageRecord, asked: str) -> None:
        """Judge an image in use, by the name it was asked for by, whatever that means now."""
        try:
            reference = str(references.parse(asked).tagged())
        except MalformedReference:
            self.use(record, None, asked)
            return
        named = [each for each in record.names if each.reference == reference]
        by_id = not named and record.id.startswith(asked if ":" in asked else f"sha256:{asked}")
        then = Name(reference=reference, digest=record.digest, manifest=record.manifest)
        self.use(record, None if by_id else (named or [then])[0], asked)

    def _refusal(self, found: Policy, name: Name, asked: str) -> ImageRefused | None:
        reference = references.parse(name.reference)
        try:
            self._judge(found.requirements("docker", reference), reference, (name.digest, name.manifest), asked)
        except ImageRefused as error:
            return error
        return None

    def _judge(
        self, requirements: tuple[Requirement, ...], reference: Reference, digests: tuple[str, ...], asked: str
    ) -> None:
        kept = [self._table.get(digest) for digest in dict.fromkeys(digests)]
        signatures = [each for signed in kept if signed for each in signed.signatures]
        for requirement in requirements:
            reason = signature.unmet(requirement, reference, digests, signatures)
            if reason:
                raise ImageRefused(asked, self._shown, reason)

    def forget(self, keep: set[str]) -> None:
        """Drop the signatures of digests that no image has any more."""
        for signed in self._table.all():
            if signed.id not in keep:
                self._table.delete(signed.id)

    @property
    def judges(self) -> bool:
        """Tell whether there is a policy."""
        return self._path is not None and (self._path != DEFAULT or self._path.exists())

    @property
    def _shown(self) -> Path:
        return self._path or DEFAULT

    def _policy(self) -> Policy | None:
        return policy.read(self._path) if self._path and self.judges else None
