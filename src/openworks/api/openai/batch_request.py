"""The body of a request for a batch, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, cast

from openai.types import BatchCreateParams

from openworks.api.context import as_object
from openworks.api.openai import values
from openworks.core.json import JsonObject, JsonValue
from openworks.wire.openai.validate import RequestValidator

_VALIDATOR: Final = RequestValidator(BatchCreateParams)
_MIN_TTL_S: Final = 3600
_MAX_TTL_S: Final = 30 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedBatch:
    """What a caller wants to be done."""

    endpoint: str
    input_file_id: str
    output_ttl_s: int | None
    metadata: Mapping[str, str]


def parse_batch(body: JsonValue, endpoints: Collection[str]) -> ParsedBatch:
    """Check the body of a new batch.

    Args:
        body: The body.
        endpoints: Those that answer lines here.

    Raises:
        InvalidRequestError: It breaks OpenAI's types or limits; names the field and the value.
        UnsupportedParameterError: OpenAI has batches of its endpoint, and this server has not.
    """
    fields = cast("JsonObject", _VALIDATOR.check(body))
    endpoint = str(fields["endpoint"])
    if endpoint not in endpoints:
        raise values.unsupported(
            "endpoint", f"batches of {endpoint!r}, only of {', '.join(endpoints)}."
        )
    input_file_id = str(fields["input_file_id"])
    if "\0" in input_file_id:
        raise values.invalid("input_file_id", f"Invalid 'input_file_id': {input_file_id[:80]!r}.")
    return ParsedBatch(
        endpoint=endpoint,
        input_file_id=input_file_id,
        output_ttl_s=_ttl(fields.get("output_expires_after")),
        metadata=values.metadata(fields.get("metadata")),
    )


def _ttl(policy: JsonValue) -> int | None:
    if policy is None:
        return None
    seconds = as_object(policy)["seconds"]
    assert isinstance(seconds, int)
    if not _MIN_TTL_S <= seconds <= _MAX_TTL_S:
        raise values.invalid(
            "output_expires_after.seconds",
            f"Invalid 'output_expires_after.seconds': it must be between {_MIN_TTL_S} and "
            f"{_MAX_TTL_S}, got {seconds}.",
        )
    return seconds
