"""Seals what is pushed, as Cloudflare does: AES-256-GCM, its key by RSA-OAEP with SHA-256.

Every log has a key of its own; each of its sealed members is `{type, key, iv, data}` in base64, so
what decrypts Cloudflare's pushed logs decrypts these.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject

MIN_KEY_BITS: Final = 2048
_OAEP: Final = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
_KEY_BITS: Final = 256
_IV_BYTES: Final = 12


class LogCipher:
    """Seals for whoever holds the private key."""

    def __init__(self, public_key_pem: str) -> None:
        """Read a public key.

        Raises:
            InvalidRequestError: It is no RSA key in PEM, or one that is too short.
        """
        try:
            key = load_pem_public_key(public_key_pem.encode())
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise _refused("it is not a public key in PEM") from exc
        if not isinstance(key, rsa.RSAPublicKey):
            raise _refused("it is not an RSA key")
        if key.key_size < MIN_KEY_BITS:
            raise _refused(f"it has {key.key_size} bits, and needs {MIN_KEY_BITS}")
        self._key = key

    def seal(self, members: Mapping[str, bytes]) -> JsonObject:
        """Return each member sealed; they share one key, and each has an IV of its own."""
        key = AESGCM.generate_key(_KEY_BITS)
        cipher, wrapped = AESGCM(key), b64encode(self._key.encrypt(key, _OAEP)).decode()
        sealed: JsonObject = {}
        for name, data in members.items():
            iv = os.urandom(_IV_BYTES)
            sealed[name] = {
                "type": "encrypted",
                "key": wrapped,
                "iv": b64encode(iv).decode(),
                "data": b64encode(cipher.encrypt(iv, data, None)).decode(),
            }
        return sealed


def _refused(reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"'logpush_public_key' cannot be used: {reason}.", param="logpush_public_key"
    )
