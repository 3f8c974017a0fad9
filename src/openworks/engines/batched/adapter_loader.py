"""Reads adapters from disk on threads of its own, so that no step waits for a file."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TypeAlias

import torch

from openworks.core.errors import AppError, ModelNotFoundError, ModelUnavailableError
from openworks.engines.batched.adapter_file import read_adapter
from openworks.engines.batched.executor import AdapterWeights

log = logging.getLogger(__name__)

_MOST_EARLY = 2
"""Adapters read ahead that nobody may come to ask for: what they take is on top of all limits."""

Loaded: TypeAlias = Callable[[AdapterWeights], None]
Failed: TypeAlias = Callable[[AppError], None]


class AdapterLoader:
    """Reads one adapter after another. Safe to call from several threads."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        """Start with nothing to read; adapters come out as matrices of `dtype`."""
        self._dtype = dtype
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="adapters")
        self._early: OrderedDict[Path, Future[AdapterWeights]] = OrderedDict()
        self._lock = Lock()

    def expect(self, folder: Path) -> None:
        """Begin to read an adapter that `load` will probably be asked for: it saves a step."""
        with self._lock:
            if folder in self._early:
                return
            if len(self._early) == _MOST_EARLY:
                oldest = next(iter(self._early))
                if not self._early[oldest].done():
                    return  # it is probably about to be asked for
                del self._early[oldest]
            self._early[folder] = self._threads.submit(read_adapter, folder, self._dtype)

    def load(self, folder: Path, loaded: Loaded, failed: Failed) -> None:
        """Read an adapter and call one of the two, here if it is read already, else later."""
        with self._lock:
            reading = self._early.pop(folder, None)
        if reading is None:
            reading = self._threads.submit(read_adapter, folder, self._dtype)
        reading.add_done_callback(lambda done: _tell(done, folder, loaded, failed))


def _tell(done: Future[AdapterWeights], folder: Path, loaded: Loaded, failed: Failed) -> None:
    try:
        weights = done.result()
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
