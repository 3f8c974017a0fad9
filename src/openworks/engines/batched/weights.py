"""Reads checkpoints as the Hub has them: safetensors, in one file or several, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, cast

import orjson
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from openworks.core.errors import ModelUnavailableError
from openworks.engines.batched.families.tensors import bare_name
from openworks.engines.batched.spec import ModelSpec

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


class _Slice(Protocol):
    def __getitem__(self, rows: slice) -> Tensor: ...


class _File(Protocol):
    """What is used of an open file; the library has no types for it."""

    def keys(self) -> Sequence[str]: ...
    def get_tensor(self, name: str) -> Tensor: ...
    def get_slice(self, name: str) -> _Slice: ...


def weights_bytes(folder: Path) -> int:
    """Return the size of a checkpoint's files."""
    return sum(path.stat().st_size for path in _files(folder))


class Checkpoint:
    """A model's tensors by our names; a context, as its files stay open inside.

    Every tensor that is read is a copy: what was mapped is let go when the context ends.
    """

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        """Hold a folder.

        Args:
            folder: Where the `.safetensors` are.
            spec: Says what our tensors are called there.
        """
        self._folder = folder
        self._spec = spec
        self._stack = ExitStack()
        self._places: dict[str, tuple[_File, str]] = {}

    def __enter__(self) -> Checkpoint:
        for path in _files(self._folder):
            try:
                opened = self._stack.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as exc:
                self._stack.close()
                raise ModelUnavailableError(
                    f"{path} cannot be read: {exc}.", code="model_load_failed"
                ) from exc
            file = cast("_File", opened)
            for name in file.keys():  # noqa: SIM118 # a file, not a dict
                self._places[bare_name(name)] = (file, name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._places.clear()
        self._stack.close()

    def has(self, name: str) -> bool:
        """Whether the model has a tensor, by our name."""
        return name in self._spec.tensors

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """Read one tensor.

        Args:
            name: Ours, as in `ModelSpec.tensors`.
            dtype: What to make of it; None: as it is.

        Raises:
            ModelUnavailableError: It is not there.
        """
        source = self._spec.tensors[name]
        place = self._places.get(source.name)
        if place is None:
            raise ModelUnavailableError(
                f"The weights in {self._folder} lack the tensor '{source.name}'.",
                code="model_load_failed",
            )
        file, stored_name = place
        if source.rows is None:
            tensor = file.get_tensor(stored_name)
        else:
            tensor = file.get_slice(stored_name)[slice(*source.rows)]
        return tensor.to(dtype=dtype or tensor.dtype, copy=True)

    def read_rows(self, names: Sequence[str], dtype: torch.dtype | None = None) -> Tensor:
        """Read tensors as one, under each other."""
        tensors = [self.read(name, dtype) for name in names]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _files(folder: Path) -> Sequence[Path]:
    """The files that belong together; some folders hold another format's beside them."""
    index = folder / _INDEX
    if index.is_file():
        try:
            weight_map: Mapping[str, str] = orjson.loads(index.read_bytes())["weight_map"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
            raise ModelUnavailableError(
                f"{index} is no index of weights.", code="model_load_failed"
            ) from exc
        paths = [folder / name for name in sorted(set(weight_map.values()))]
    elif (folder / _SINGLE).is_file():
        paths = [folder / _SINGLE]
    else:
        paths = sorted(folder.glob("*.safetensors"))
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise ModelUnavailableError(f"{missing} is missing.", code="model_load_failed")
    if not paths:
        raise ModelUnavailableError(
            f"{folder} holds no .safetensors; weights in other formats are not read.",
            code="model_load_failed",
        )
    return paths
