"""Seals secrets: AES-256-GCM under a master key, bound to the place where each belongs."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openworks.core.errors import AppError, InternalError

KEY_BYTES = 32
MAX_KEYS = 16
"""A ring holds so many: the newest seals, the others only open what they sealed."""
_PREFIX = "ow1"
_NONCE_BYTES = 12


class SecretKeyError(AppError):
    """A master key is not one, or cannot be kept."""


class UnreadableSecretError(InternalError):
    """A secret was sealed with a key that this server does not have, or is not where it belongs."""

    default_code = "unreadable_secret"


class KeySource(Protocol):
    """Where the master keys are."""

    def load(self) -> Sequence[bytes]:
        """Return the keys, newest first; at least one."""
        ...

    def add(self, key: bytes) -> None:
        """Put a key before the others, for good.

        Raises:
            SecretKeyError: They are kept by the operator.
        """
        ...


class Vault:
    """Opens and closes secrets. Keys are read when the first secret needs one."""

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._current = ""
        self._ring: dict[str, AESGCM] = {}

    def seal(self, secret: str, place: Sequence[str]) -> str:
        """Encrypt `secret`; the result opens only for the same `place`.

        Args:
            secret: Any text.
            place: Names what it belongs to, such as account, kind and id.
        """
        if not self._current:
            self._read()
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ring[self._current].encrypt(nonce, secret.encode(), _bound_to(place))
        return f"{_PREFIX}.{self._current}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, place: Sequence[str]) -> str:
        """Decrypt what `seal` made.

        Raises:
            UnreadableSecretError: Its key is gone, it was changed, or it was sealed elsewhere.
        """
        prefix, _, rest = sealed.partition(".")
        key_id, _, text = rest.partition(".")
        if key_id not in self._ring:
            self._read()  # another process may have made a new one
        key = self._ring.get(key_id)
        if prefix != _PREFIX or key is None:
            raise UnreadableSecretError(
                f"A secret was sealed with the key {key_id[:16]!r}, which this server has not."
            )
        try:
            data = base64.urlsafe_b64decode(text)
            return key.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound_to(place)).decode()
        except (binascii.Error, InvalidTag, ValueError):
            raise UnreadableSecretError(
                f"A secret of {'/'.join(place)} was changed, or was not sealed for this place."
            ) from None

    def is_current(self, sealed: str) -> bool:
        """Whether the newest key sealed this."""
        if not self._current:
            self._read()
        return sealed.startswith(f"{_PREFIX}.{self._current}.")

    def add(self, key: bytes) -> str:
        """Seal with another key from now on; return its id."""
        _check(key)
        if _key_id(key) != self.current:
            self._source.add(key)
            self._read()
        return self._current

    @property
    def current(self) -> str:
        """The id of the newest key, which tells nothing of it."""
        if not self._current:
            self._read()
        return self._current

    def _read(self) -> None:
        keys = self._source.load()
        self._ring = {_key_id(key): AESGCM(key) for key in keys}
        self._current = _key_id(keys[0])


class GivenKeys:
    """Keys from the settings: one, or several with commas between, the newest first."""

    def __init__(self, text: str) -> None:
        """Read them.

        Raises:
            SecretKeyError: One is not 32 bytes in base64 or hex.
        """
        self._keys = [decode_key(part.strip()) for part in text.split(",")]

    def load(self) -> Sequence[bytes]:
        return self._keys

    def add(self, key: bytes) -> None:
        raise SecretKeyError(
            "The secret key is set by gateway.secret_key: set that to the new key, a comma and the "
            "old one, and restart; the new one is used then."
        )


class KeyFile:
    """Keys in a file that only its owner may read, made when it is first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Sequence[bytes]:
        try:
            text = self._path.read_text(encoding="ascii")
        except FileNotFoundError:
            self._make()
            return self.load()
        except (OSError, UnicodeDecodeError) as exc:
            raise SecretKeyError(f"The secret key file {self._path} cannot be read.") from exc
        keys = [decode_key(line) for line in text.split()]
        if not keys:
            raise SecretKeyError(f"The secret key file {self._path} is empty.")
        return keys[:MAX_KEYS]

    def add(self, key: bytes) -> None:
        keys = [key, *(other for other in self.load() if other != key)]
        new = self._write(keys[:MAX_KEYS])
        new.replace(self._path)

    def _make(self) -> None:
        new = self._write([os.urandom(KEY_BYTES)])
        try:
            self._path.hardlink_to(new)
        except FileExistsError:
            pass  # another process was first; its key is the key
        except OSError:  # no hard links on this file system: two that start at once may differ
            new.replace(self._path)
        new.unlink(missing_ok=True)

    def _write(self, keys: Iterable[bytes]) -> Path:
        """Write a file beside it, complete before anybody sees it under its name."""
        new = self._path.with_name(f"{self._path.name}.{os.urandom(6).hex()}")
        lines = "".join(f"{base64.b64encode(key).decode()}\n" for key in keys)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(lines)
                file.flush()
                os.fsync(descriptor)
        except OSError as exc:
            raise SecretKeyError(f"Cannot write the secret key file {self._path}.") from exc
        return new


def decode_key(text: str) -> bytes:
    """Read 32 bytes written as base64 or hex.

    Raises:
        SecretKeyError: They are not; the message does not repeat them.
    """
    key = b""
    with suppress(ValueError):
        key = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else _from_base64(text)
    _check(key)
    return key


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)


def _check(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise SecretKeyError(
            f"A secret key must be {KEY_BYTES} bytes in base64 or hex; make one with: "
            "openssl rand -base64 32"
        )


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"openworks secret key id\0" + key).hexdigest()[:8]


def _bound_to(place: Sequence[str]) -> bytes:
    return "\0".join(place).encode()
