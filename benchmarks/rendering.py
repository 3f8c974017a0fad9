"""What it costs to build a stream event: a plain dictionary against the SDK's own model.

python -m benchmarks.rendering
"""

from __future__ import annotations

import timeit

import orjson
from openai.types.chat import ChatCompletionChunk

from benchmarks import machine

REPEATS = 2000


def as_dict() -> bytes:
    """Build the event the way that `api/openai/chat_answer.py` does."""
    return orjson.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "service_tier": "default",
            "system_fingerprint": None,
            "choices": [
                {"index": 0, "delta": {"content": "a"}, "logprobs": None, "finish_reason": None}
            ],
        }
    )


def as_model() -> bytes:
    """Build the event as a validated model of the SDK's."""
    return (
        ChatCompletionChunk.model_validate(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "m",
                "service_tier": "default",
                "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}],
            }
        )
        .model_dump_json(exclude_unset=True)
        .encode()
    )


def main() -> None:
    """Print microseconds for each, the best of five runs."""
    print(machine.describe())
    for build in (as_dict, as_model):
        best_s = min(timeit.repeat(build, number=REPEATS, repeat=5)) / REPEATS
        print(f"{build.__name__}: {best_s * 1e6:.1f} µs an event")


if __name__ == "__main__":
    main()
