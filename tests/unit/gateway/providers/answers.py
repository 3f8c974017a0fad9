"""What providers answer: whole bodies and streams in their own shapes, and their usage."""

from __future__ import annotations

import json
from dataclasses import dataclass

from openworks.gateway.providers.eventstream import chunk_frame, frame
from openworks.ports.calls import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An answer, and what must be read out of it."""

    provider: str
    endpoint: str
    body: bytes
    usage: Usage


def _sse(*events: object, done: bool = False) -> bytes:
    lines = b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events)
    return lines + (b"data: [DONE]\n\n" if done else b"")


def _named(*events: dict[str, object]) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode()
        for event in events
    )


def _chat_chunk(**members: object) -> dict[str, object]:
    return {
        "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "object": "chat.completion.chunk",
        "created": 1741570283,
        "model": "gpt-4o-2024-08-06",
        "service_tier": "default",
        "system_fingerprint": "fp_fc9f1d7035",
        **members,
    }


def _delta(finish: str | None = None, **delta: object) -> dict[str, object]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _chat_chunk(choices=[choice], usage=None)


_CHAT_USAGE = {
    "prompt_tokens": 1117,
    "completion_tokens": 46,
    "total_tokens": 1163,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 12,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
_CHAT = Usage(prompt_tokens=1117, completion_tokens=46, cached_tokens=1024, reasoning_tokens=12)

_RESPONSE = {
    "id": "resp_67ccd2bed1ec8190b14f964abc054267",
    "object": "response",
    "status": "completed",
    "model": "gpt-4.1-2025-04-14",
    "output": [
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": 'the "usage" of {braces}'}],
        }
    ],
    "usage": {
        "input_tokens": 36,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 123,
    },
}
_RESPONSES = Usage(prompt_tokens=36, completion_tokens=87, cached_tokens=8, reasoning_tokens=3)

_GOOGLE_META = {
    "promptTokenCount": 11,
    "candidatesTokenCount": 73,
    "totalTokenCount": 611,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 11}],
    "thoughtsTokenCount": 527,
    "cachedContentTokenCount": 4,
}
_GOOGLE = Usage(prompt_tokens=11, completion_tokens=600, cached_tokens=4, reasoning_tokens=527)


def _gemini(text: str, finish: str | None = None) -> dict[str, object]:
    candidate: dict[str, object] = {
        "content": {"parts": [{"text": text}], "role": "model"},
        "index": 0,
    }
    if finish:
        candidate["finishReason"] = finish
    meta = _GOOGLE_META if finish else {"promptTokenCount": 11, "totalTokenCount": 11}
    return {"candidates": [candidate], "usageMetadata": meta, "modelVersion": "gemini-2.5-flash"}


_COHERE_USAGE = {
    "billed_units": {"input_tokens": 5.0, "output_tokens": 418.0},
    "tokens": {"input_tokens": 71.0, "output_tokens": 418.0},
}

_CONVERSE_USAGE = {
    "inputTokens": 30,
    "outputTokens": 628,
    "totalTokens": 658,
    "cacheReadInputTokens": 100,
    "cacheWriteInputTokens": 20,
}
_CONVERSE = Usage(prompt_tokens=150, completion_tokens=628, cached_tokens=100)

WHOLE = {
    "openai chat": Sample(
        provider="openai",
        endpoint="chat/completions",
        body=json.dumps(
            {
                "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
                "object": "chat.completion",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": 'say "usage": {"x": 1}'},
                        "finish_reason": "stop",
                    }
                ],
                "usage": _CHAT_USAGE,
            }
        ).encode(),
        usage=_CHAT,
    ),
    "openai responses": Sample(
        provider="openai",
        endpoint="responses",
        body=json.dumps(_RESPONSE).encode(),
        usage=_RESPONSES,
    ),
    "openai embeddings": Sample(
        provider="openai",
        endpoint="embeddings",
        body=b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-0.2]}],'
        b'"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}',
        usage=Usage(prompt_tokens=8),
    ),
    "anthropic": Sample(
        provider="anthropic",
        endpoint="v1/messages",
        body=b'{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","content":'
        b'[{"type":"text","text":"Hi!"}],"model":"claude-sonnet-4-5","stop_reason":"end_turn",'
        b'"usage":{"input_tokens":2095,"cache_creation_input_tokens":50,'
        b'"cache_read_input_tokens":1000,"output_tokens":503,"service_tier":"standard"}}',
        usage=Usage(prompt_tokens=3145, completion_tokens=503, cached_tokens=1000),
    ),
    "google": Sample(
        provider="google-ai-studio",
        endpoint="v1beta/models/gemini-2.5-flash:generateContent",
        body=json.dumps(_gemini("Hi", "STOP")).encode(),
        usage=_GOOGLE,
    ),
    "cohere v2": Sample(
        provider="cohere",
        endpoint="v2/chat",
        body=json.dumps(
            {
                "id": "c14c80c3",
                "message": {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
                "finish_reason": "COMPLETE",
                "usage": _COHERE_USAGE,
            }
        ).encode(),
        usage=Usage(prompt_tokens=5, completion_tokens=418),
    ),
    "cohere v1": Sample(
        provider="cohere",
        endpoint="v1/chat",
        body=json.dumps({"text": "Hi", "meta": {"api_version": {}, **_COHERE_USAGE}}).encode(),
        usage=Usage(prompt_tokens=5, completion_tokens=418),
    ),
    "bedrock converse": Sample(
        provider="aws-bedrock",
        endpoint="bedrock-runtime/us-east-1/model/amazon.nova-lite-v1:0/converse",
        body=json.dumps(
            {
                "metrics": {"latencyMs": 1275},
                "output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
                "stopReason": "end_turn",
                "usage": _CONVERSE_USAGE,
            }
        ).encode(),
        usage=_CONVERSE,
    ),
    "workers-ai": Sample(
        provider="workers-ai",
        endpoint="@cf/meta/llama-3.1-8b-instruct",
        body=b'{"result":{"response":"Hi","usage":{"prompt_tokens":16,"completion_tokens":9,'
        b'"total_tokens":25}},"success":true,"errors":[],"messages":[]}',
        usage=Usage(prompt_tokens=16, completion_tokens=9),
    ),
    "replicate": Sample(
        provider="replicate",
        endpoint="models/meta/meta-llama-3-70b-instruct/predictions",
        body=b'{"id":"gm3qorzdhgbfurvjtvhg6dckhu","output":["Hi"],"status":"succeeded","metrics":'
        b'{"input_token_count":19,"output_token_count":89,"predict_time":0.1}}',
        usage=Usage(prompt_tokens=19, completion_tokens=89),
    ),
    "deepseek": Sample(
        provider="deepseek",
        endpoint="chat/completions",
        body=b'{"choices":[],"usage":{"prompt_tokens":16,"completion_tokens":10,"total_tokens":26,'
        b'"prompt_cache_hit_tokens":12,"prompt_cache_miss_tokens":4}}',
        usage=Usage(prompt_tokens=16, completion_tokens=10, cached_tokens=12),
    ),
    "grok, whose total holds reasoning that its completion does not": Sample(
        provider="grok",
        endpoint="v1/chat/completions",
        body=b'{"choices":[],"usage":{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,'
        b'"completion_tokens_details":{"reasoning_tokens":94}}}',
        usage=Usage(prompt_tokens=32, completion_tokens=103, reasoning_tokens=94),
    ),
}

_ANTHROPIC_STREAM = _named(
    {
        "type": "message_start",
        "message": {
            "id": "msg_1nZdL29xx5MUA1yADyHTEsnR8uuvGzszyY",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": "claude-sonnet-4-5",
            "usage": {"input_tokens": 25, "cache_read_input_tokens": 75, "output_tokens": 1},
        },
    },
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": ""},
    },
    {"type": "ping"},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "Hello message_stop"},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": '"usage"!'},
    },
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 15},
    },
    {"type": "message_stop"},
)

_CONVERSE_STREAM = b"".join(
    frame(
        {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}, data
    )
    for kind, data in (
        ("messageStart", b'{"role":"assistant","p":"abcd"}'),
        ("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"Hello"},"p":"abc"}'),
        ("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":" there"},"p":"ab"}'),
        ("contentBlockStop", b'{"contentBlockIndex":0}'),
        ("messageStop", b'{"stopReason":"end_turn"}'),
        ("metadata", json.dumps({"metrics": {"latencyMs": 9}, "usage": _CONVERSE_USAGE}).encode()),
    )
)

_INVOKE_STREAM = b"".join(
    chunk_frame(data)
    for data in (
        b'{"type":"message_start","message":{"usage":{"input_tokens":10,"output_tokens":1}}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}',
        b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}',
        b'{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":10,'
        b'"outputTokenCount":7,"invocationLatency":552,"firstByteLatency":300}}',
    )
)

STREAMS = {
    "openai chat": Sample(
        provider="openai",
        endpoint="chat/completions",
        body=_sse(
            _delta(role="assistant", content="", refusal=None),
            _delta(content="Hello"),
            _delta(content=' "usage" [DONE]'),
            _delta("stop"),
            _chat_chunk(choices=[], usage=_CHAT_USAGE),
            done=True,
        ),
        usage=_CHAT,
    ),
    "openai with CRLF": Sample(
        provider="mistral",
        endpoint="v1/chat/completions",
        body=b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}],"usage":'
        b'{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}}\r\n\r\ndata: [DONE]\r\n\r\n',
        usage=Usage(prompt_tokens=4, completion_tokens=2),
    ),
    "openai responses": Sample(
        provider="openai",
        endpoint="v1/responses",
        body=_named(
            {"type": "response.created", "response": {"status": "in_progress", "usage": None}},
            {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Hi"},
            {"type": "response.output_text.delta", "item_id": "msg_1", "delta": " there"},
            {"type": "response.completed", "response": _RESPONSE},
        ),
        usage=_RESPONSES,
    ),
    "anthropic": Sample(
        provider="anthropic",
        endpoint="v1/messages",
        body=_ANTHROPIC_STREAM,
        usage=Usage(prompt_tokens=100, completion_tokens=15, cached_tokens=75),
    ),
    "google events": Sample(
        provider="google-ai-studio",
        endpoint="v1beta/models/gemini-2.5-flash:streamGenerateContent",
        body=_sse(_gemini("Hello"), _gemini(" there", "STOP")),
        usage=_GOOGLE,
    ),
    "google array": Sample(
        provider="google-vertex-ai",
        endpoint="v1/projects/p/locations/us-central1/publishers/google/models/"
        "gemini-2.5-flash:streamGenerateContent",
        body=json.dumps([_gemini("Hello"), _gemini(" there", "STOP")], indent=2).encode(),
        usage=_GOOGLE,
    ),
    "cohere v2": Sample(
        provider="cohere",
        endpoint="v2/chat",
        body=_named(
            {"type": "message-start", "id": "29f14a5a", "delta": {"message": {"content": []}}},
            {
                "type": "content-delta",
                "index": 0,
                "delta": {"message": {"content": {"text": "LLM"}}},
            },
            {
                "type": "message-end",
                "delta": {"finish_reason": "COMPLETE", "usage": _COHERE_USAGE},
            },
        ),
        usage=Usage(prompt_tokens=5, completion_tokens=418),
    ),
    "cohere v1 lines": Sample(
        provider="cohere",
        endpoint="v1/chat",
        body=b'{"is_finished":false,"event_type":"text-generation","text":"LLM"}\n'
        b'{"is_finished":true,"event_type":"stream-end","response":{"text":"LLM","meta":'
        + json.dumps(_COHERE_USAGE).encode()
        + b'},"finish_reason":"COMPLETE"}\n',
        usage=Usage(prompt_tokens=5, completion_tokens=418),
    ),
    "workers-ai": Sample(
        provider="workers-ai",
        endpoint="@cf/meta/llama-3.1-8b-instruct",
        body=b'data: {"response":"Hi","p":"abdef"}\n\ndata: {"response":7}\n\n'
        b'data: {"response":"","usage":{"prompt_tokens":16,"completion_tokens":9,'
        b'"total_tokens":25}}\n\ndata: [DONE]\n\n',
        usage=Usage(prompt_tokens=16, completion_tokens=9),
    ),
    "perplexity, which repeats usage and has no end mark": Sample(
        provider="perplexity-ai",
        endpoint="chat/completions",
        body=_sse(
            {
                "choices": [{"delta": {"content": "Hi"}, "finish_reason": None}],
                "usage": {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5},
            },
            {
                "choices": [{"delta": {"content": "!"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
            },
        ),
        usage=Usage(prompt_tokens=4, completion_tokens=2),
    ),
    "groq, whose usage stands in a member of its own": Sample(
        provider="groq",
        endpoint="chat/completions",
        body=_sse(
            _delta(content="Hi"),
            _chat_chunk(
                choices=[],
                x_groq={"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
            ),
            done=True,
        ),
        usage=Usage(prompt_tokens=3, completion_tokens=2),
    ),
    "bedrock converse": Sample(
        provider="aws-bedrock",
        endpoint="bedrock-runtime/us-east-1/model/amazon.nova-lite-v1:0/converse-stream",
        body=_CONVERSE_STREAM,
        usage=_CONVERSE,
    ),
    "bedrock invoke": Sample(
        provider="aws-bedrock",
        endpoint="bedrock-runtime/us-east-1/model/anthropic.claude/invoke-with-response-stream",
        body=_INVOKE_STREAM,
        usage=Usage(prompt_tokens=10, completion_tokens=7),
    ),
}
