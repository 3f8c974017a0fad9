"""Checks bodies against Pydantic models, and tells of the first mistake in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonValue

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SECRETS = frozenset({"secret", "authorization", "headers", "payload", "url", "usage_events"})
"""Fields whose values no message repeats."""
_CONTAINERS = frozenset({"model_type", "dict_type", "list_type"})
"""Faults of something that stands where an object or a list should, with who knows what in it."""
_MAX_SHOWN = 100


class Shape(BaseModel):
    """A JSON object without unknown members, and without conversions between types."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


ShapeT = TypeVar("ShapeT", bound=Shape)


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError("expected an http or https URL with a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL may hold no user name or password; use a header")
    return text


Name = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9_-]{1,64}\z")]
"""What stands in paths: letters, digits, `_` and `-`."""
HttpUrl = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_http_url)]
Text = Annotated[str, StringConstraints(max_length=4096)]


def checked(shape: type[ShapeT], body: JsonValue) -> ShapeT:
    """Return `body` as `shape`.

    Raises:
        InvalidRequestError: It does not fit; names the field and its value.
    """
    if not isinstance(body, dict):
        raise InvalidRequestError("The body of this request must be a JSON object.")
    try:
        return shape.model_validate(body)
    except ValidationError as exc:
        # Not chained: Pydantic's words would repeat values that may be secret.
        raise _refusal(shape, exc.errors(include_url=False)[0]) from None


def unknown_field(param: str, known: list[str]) -> InvalidRequestError:
    """Return the refusal of a field that nobody knows."""
    near = difflib.get_close_matches(param.rpartition(".")[2], known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return InvalidRequestError(f"Unknown field '{param}'.{hint}", code="unknown_field", param=param)


def missing_field(param: str) -> InvalidRequestError:
    """Return the refusal of a body that lacks a field."""
    return InvalidRequestError(
        f"Missing required field '{param}'.", code="missing_field", param=param
    )


def _refusal(shape: type[Shape], fault: ErrorDetails) -> InvalidRequestError:
    location = [part for part in fault["loc"] if part != "[key]"]
    param = ".".join(str(part) for part in location)
    if fault["type"] == "extra_forbidden":
        names = list(_own_names(shape)) if len(location) == 1 else _all_names(shape)
        return unknown_field(param, names)
    if fault["type"] == "missing":
        return missing_field(param)
    if fault["type"] == "value_error":
        reason = str(fault["ctx"]["error"])
    else:
        reason = fault["msg"][:1].lower() + fault["msg"][1:]
    if not param:
        return InvalidRequestError(f"This body does not fit together: {reason}.")
    is_secret = fault["type"] in _CONTAINERS or _SECRETS & set(map(str, location))
    shown = "" if is_secret else f", got {_shown(fault['input'])}"
    return InvalidRequestError(f"Invalid '{param}': {reason}{shown}.", param=param)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):  # somewhere in it may be a secret
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _own_names(shape: type[BaseModel]) -> Iterator[str]:
    for name, field in shape.model_fields.items():
        yield field.alias or name


@cache
def _all_names(shape: type[BaseModel]) -> list[str]:
    schema = shape.model_json_schema()
    names = set(schema["properties"])
    for inner in schema.get("$defs", {}).values():
        names |= set(inner.get("properties", ()))
    return sorted(names)
