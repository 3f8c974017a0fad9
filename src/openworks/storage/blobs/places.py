"""Opens the place where blobs lie: a folder, or a bucket with the credentials for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store, from_url

from openworks.core.errors import StorageError
from openworks.storage.blobs.s3 import S3Config

if TYPE_CHECKING:  # obstore has them for type checkers only
    from obstore.store import ClientConfig, RetryConfig, S3Credential
    from obstore.store import S3Config as S3Options

_SCHEMES = ("s3://", "gs://", "az://")

_PATIENCE: Final[RetryConfig] = {"max_retries": 5, "retry_timeout": timedelta(seconds=30)}
"""How long a bucket may be away until its callers are told."""


def open_place(place: str, s3: S3Config) -> ObjectStore:
    """Open a folder or a bucket, as `ObjectBlobs` says."""
    try:
        if place.startswith("s3://"):
            return _open_s3(place, s3)
        if place.startswith(_SCHEMES):
            return from_url(place, retry_config=_PATIENCE)
        if "://" in place:
            raise StorageError(
                f"A place for blobs is a folder or begins with {', '.join(_SCHEMES)}, "
                f"not with {place.partition('://')[0]!r}."
            )
        return LocalStore(Path(place).absolute(), mkdir=True, automatic_cleanup=True)
    except (BaseError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]  # what follows is for obstore's developers
        raise StorageError(f"The place for blobs cannot be opened: {reason}.") from error


def bucket_of(place: str) -> str | None:
    """Return what messages call a bucket; None for a folder, whose path is not for callers."""
    scheme, separator, path = place.partition("://")
    return f"{scheme}://{path.partition('/')[0]}" if separator else None


def _open_s3(url: str, s3: S3Config) -> S3Store:
    endpoint = s3.endpoint or "https://"
    if not endpoint.startswith(("http://", "https://")):
        raise StorageError(f"An S3 endpoint begins with http:// or https://, got {endpoint!r}.")
    if bool(s3.access_key_id) != bool(s3.secret_access_key):
        raise StorageError("A key for S3 is an id and a secret: give both, or none.")
    options: S3Options = {}
    if s3.endpoint:
        options["endpoint"] = s3.endpoint
    if s3.region:
        options["region"] = s3.region
    http: ClientConfig = {"allow_http": True} if endpoint.startswith("http://") else {}
    return S3Store.from_url(
        url,
        config=options,
        client_options=http,
        retry_config=_PATIENCE,
        credential_provider=_credentials_of(s3),
    )


def _credentials_of(s3: S3Config) -> Callable[[], S3Credential] | None:
    """Return what gives the key; not as options, which a token of the environment would join."""
    if not s3.access_key_id or not s3.secret_access_key:
        return None
    credential: S3Credential = {
        "access_key_id": s3.access_key_id,
        "secret_access_key": s3.secret_access_key,
        "expires_at": None,
    }
    return lambda: credential
