"""Reads adapters from disk on threads of its own, so that no step waits for a file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from openworks.core.errors import AppError, ModelNotFoundError, ModelUnavailableError
from openworks.engines.batched.adapter_file import read_adapter
from openworks.engines.batched.executor import AdapterWeights

log = logging.getLogger(__name__)

Loaded: TypeAlias = Callable[[AdapterWeights], None]
Failed: TypeAlias = Callable[[AppError], None]


class AdapterLoader:
    """Reads one adapter after another."""

    def __init__(self, num_threads: int = 1) -> None:
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="adapters")

    def load(self, folder: Path, loaded: Loaded, failed: Failed) -> None:
        """Read an adapter and call one of the two, on a thread of the loader."""
        self._threads.submit(self._load, folder, loaded, failed)

    def _load(self, folder: Path, loaded: Loaded, failed: Failed) -> None:
        try:
            weights = read_adapter(folder)
        except AppError as error:
            failed(error if folder.exists() else _deleted())
        except Exception:
            # The boundary of one file: only those who wait for it fail.
            log.exception("adapter.load_failed")
            failed(ModelUnavailableError("The adapter cannot be read; the log has the details."))
        else:
            loaded(weights)


def _deleted() -> ModelNotFoundError:
    """Make the error for an adapter whose files went away before they were read."""
    return ModelNotFoundError("The adapter was deleted while this request waited.", param="model")
