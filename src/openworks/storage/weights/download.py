"""One file from the Hub: resumed where it stopped, and verified before anyone sees it.

The Hub's own client drops an unfinished file when its process ends, so this is ours. Xet, the
Hub's chunked transfer, stays out of it: one path is enough to keep right, and the Hub serves every
file up to 50 GB over plain HTTP too, which is more than any part of a split GGUF.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import httpx2
from huggingface_hub import get_session, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError

from openworks.core.errors import ProviderError

log = logging.getLogger(__name__)

_CHUNK_BYTES = 256 * 1024
_PASSING_STATUS = frozenset({408, 416, 429, 500, 502, 503, 504})


class DownloadStopped(Exception):
    """Nobody waits for the file any more; what came so far stays for the next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file of a repository, as the Hub's listing describes it."""

    name: str
    url: str
    size_bytes: int
    etag: str
    """SHA-256 of the content for large files, git's blob id for small ones; names the blob."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to bear with a bad connection."""

    timeout_s: float
    """Seconds without a byte after which a connection counts as broken."""
    retries: int
    """Attempts in a row that may bring nothing new."""
    backoff_s: float
    """The pause before the first of them; each further one doubles it."""


class Download:
    """Fills one partial file. Blocking: runs in a thread, and ends soon after `stop` is set."""

    def __init__(
        self,
        file: RemoteFile,
        partial: Path,
        *,
        headers: Mapping[str, str],
        patience: Patience,
        stop: Event,
        on_bytes: Callable[[int], None],
    ) -> None:
        self._file = file
        self._partial = partial
        self._headers = {**headers, "Accept-Encoding": "identity"}  # ranges count plain bytes
        self._patience = patience
        self._stop = stop
        self._on_bytes = on_bytes
        self._size = 0
        self._hash = self._new_hash()

    def run(self) -> None:
        """Return when the partial file is complete and verified.

        Raises:
            ProviderError: The bytes fail their checksum; they are deleted.
            DownloadStopped: `stop` was set.
            httpx2.TransportError: The connection failed, and retries did not help.
            HfHubHTTPError: The Hub answered with an error.
            OSError: The disk failed.
        """
        self._take_up()
        failures = 0
        while self._size < self._file.size_bytes:
            size_before = self._size
            try:
                self._stream()
            except (httpx2.TransportError, HfHubHTTPError) as error:
                failures = 1 if self._size > size_before else failures + 1
                if failures > self._patience.retries or not _may_pass(error):
                    raise
                log.warning(
                    "hub.download.retry",
                    extra={"file": self._file.name, "size_bytes": self._size, "attempt": failures},
                )
                if self._stop.wait(self._patience.backoff_s * 2 ** (failures - 1)):
                    raise DownloadStopped from error
        self._verify()

    def _take_up(self) -> None:
        """Continue what an earlier run left, or begin anew."""
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        if not self._partial.exists():
            self._partial.touch()
        with self._partial.open("rb") as kept:
            while chunk := kept.read(_CHUNK_BYTES):
                self._hash.update(chunk)
                self._size += len(chunk)
        if self._size > self._file.size_bytes:
            self._start_over()
        self._on_bytes(self._size)

    def _stream(self) -> None:
        headers = dict(self._headers)
        if self._size > 0:
            headers["Range"] = f"bytes={self._size}-"
        with (
            get_session().stream(
                "GET", self._file.url, headers=headers, timeout=self._patience.timeout_s
            ) as response,
            self._partial.open("ab") as out,
        ):
            hf_raise_for_status(response)
            if self._size > 0 and response.status_code != httpx2.codes.PARTIAL_CONTENT:
                self._start_over()  # the server ignored the range and sends the file from its start
            for chunk in response.iter_raw(_CHUNK_BYTES):
                if self._stop.is_set():
                    raise DownloadStopped
                out.write(chunk)
                self._hash.update(chunk)
                self._size += len(chunk)
                self._on_bytes(min(self._size, self._file.size_bytes))
                if self._size > self._file.size_bytes:
                    break  # too long: the checksum will say so
            out.flush()
            os.fsync(out.fileno())
        if self._size < self._file.size_bytes:
            raise httpx2.RemoteProtocolError("The connection closed before the file's end.")

    def _start_over(self) -> None:
        os.truncate(self._partial, 0)  # a file open for appending writes at the new end
        self._size = 0
        self._hash = self._new_hash()

    def _verify(self) -> None:
        found = self._hash.hexdigest()
        if found == self._file.etag and self._size == self._file.size_bytes:
            return
        self._partial.unlink()
        raise ProviderError(
            f"'{self._file.name}' arrived damaged: its checksum is {found}, and the Hub lists"
            f" {self._file.etag}. It was deleted; fetch it again.",
            code="checksum_mismatch",
        )

    def _new_hash(self) -> hashlib._Hash:
        if len(self._file.etag) == 64:
            return hashlib.sha256()
        # git's blob id: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        header = f"blob {self._file.size_bytes}\0".encode()
        return hashlib.sha1(header, usedforsecurity=False)


def _may_pass(error: httpx2.TransportError | HfHubHTTPError) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _PASSING_STATUS
    return not isinstance(error, httpx2.UnsupportedProtocol)
