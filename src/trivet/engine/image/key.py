"""Public keys of a policy, and what is signed with them. A module of its own: what it needs takes megabytes."""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from trivet.engine.image.policy import UnusableKey


def load(name: str, pem: bytes) -> PublicKeyTypes:
    """Read a key in PEM form. Raises `UnusableKey`."""
    try:
        return serialization.load_pem_public_key(pem)
    except Exception as error:  # its own, ValueError and others, by what the file holds
        raise UnusableKey(name, "it is no public key in PEM form") from error


def verified(key: PublicKeyTypes, payload: bytes, signature: str) -> bool:
    """Tell whether a text was signed with a key; the signature is ASN.1 in base64."""
    try:
        raw = base64.b64decode(signature, validate=True)
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(raw, payload, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPublicKey():
                key.verify(raw, payload, padding.PKCS1v15(), hashes.SHA256())
            case ed25519.Ed25519PublicKey():
                key.verify(raw, payload)
            case _:
                return False
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
