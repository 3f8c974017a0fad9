"""The sampling fields that chat and plain completions share."""

from __future__ import annotations

from openworks.api.openai import values
from openworks.core.json import JsonObject
from openworks.ports.text import Sampling

OWN_FIELDS = {"top_k": int, "min_p": float, "repeat_penalty": float}
"""Sampling that open models have and OpenAI's API lacks; the SDK sends them by `extra_body`."""

MAX_ANSWERS = 128
_MAX_SEED = 2**63


def parse_sampling(
    fields: JsonObject, *, max_tokens: int | None, top_logprobs: int | None
) -> Sampling:
    """Check and translate; the two APIs name the limits on tokens and rivals differently.

    Raises:
        InvalidRequestError: A value is out of its range.
    """
    return Sampling(
        max_tokens=max_tokens,
        temperature=values.number(fields, "temperature", 0, 2),
        top_p=values.number(fields, "top_p", 0, 1),
        top_k=values.integer(fields, "top_k", 0),
        min_p=values.number(fields, "min_p", 0, 1),
        frequency_penalty=values.number(fields, "frequency_penalty", -2, 2) or 0.0,
        presence_penalty=values.number(fields, "presence_penalty", -2, 2) or 0.0,
        repeat_penalty=values.number(fields, "repeat_penalty", 0, 10),
        seed=values.integer(fields, "seed", -_MAX_SEED, _MAX_SEED - 1),
        stop=values.stops(fields),
        logit_bias=values.logit_bias(fields),
        top_logprobs=top_logprobs,
    )


def wants_usage(fields: JsonObject, *, stream: bool) -> bool:
    """Whether a stream ends with an event about usage.

    Raises:
        InvalidRequestError: There are options and no stream.
    """
    options = fields.get("stream_options")
    if options is not None and not stream:
        raise values.invalid(
            "stream_options", "'stream_options' may be sent only when 'stream' is true."
        )
    return isinstance(options, dict) and options.get("include_usage") is True
