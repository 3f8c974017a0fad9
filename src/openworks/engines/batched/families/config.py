"""Reads values of a `config.json`: of one type each, with the family's own default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openworks.core.errors import ModelUnavailableError
from openworks.core.json import JsonObject, JsonValue
from openworks.engines.batched.spec import Activation, UnsupportedModelError

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The fields of a `config.json`, or of a section of it.

    A key that is absent or null has its default; without one, or with a value of another type,
    it is a `ModelUnavailableError`.
    """

    fields: JsonObject

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            raise _wrong(key, value, "a whole number")
        return int(value)

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(key, value, "a number")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise _wrong(key, value, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise _wrong(key, value, "a string")
        return value

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of numbers; empty when absent."""
        return tuple(
            ModelConfig({key: value}).number(key) for value in self._items(key, "a list of numbers")
        )

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty when absent."""
        return tuple(
            ModelConfig({key: value}).text(key) for value in self._items(key, "a list of strings")
        )

    def optional_integer(self, key: str) -> int | None:
        return self.integer(key) if self.has(key) else None

    def optional_number(self, key: str) -> float | None:
        return self.number(key) if self.has(key) else None

    def section(self, key: str) -> ModelConfig | None:
        """An object inside; None when absent."""
        value = self.fields.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise _wrong(key, value, "an object")
        return ModelConfig(value)

    def activation(self, *keys: str, default: str) -> Activation:
        """The MLP's activation, by the first of `keys` that is there."""
        name = next((self.text(key) for key in keys if self.has(key)), default)
        found = _ACTIVATIONS.get(name)
        if found is None:
            raise UnsupportedModelError(f"Activation '{name}' is not known.")
        return found

    def has(self, key: str) -> bool:
        """Whether the key is there with a value other than null."""
        return self.fields.get(key) is not None

    def _value(self, key: str, default: JsonValue) -> JsonValue:
        value = self.fields.get(key)
        if value is None:
            value = default
        if value is None:
            raise ModelUnavailableError(f"config.json has no '{key}'.", code="model_load_failed")
        return value

    def _items(self, key: str, expected: str) -> Sequence[JsonValue]:
        value = self.fields.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise _wrong(key, value, expected)
        return value


def _wrong(key: str, value: object, expected: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"config.json: '{key}' must be {expected}, got {value!r}.", code="model_load_failed"
    )
