"""What the tests of DLP share: gateways with one policy, and streams in every provider's form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from openworks.core.ids import AccountId
from openworks.gateway.guard.policies import (
    BUILT_IN,
    CompiledPolicies,
    SidePolicies,
    compile_policies,
)
from openworks.gateway.guard.stream import StreamGuard
from openworks.gateway.guard.verdicts import scan_texts
from openworks.ports.gateways import (
    DEFAULT_GATEWAY,
    DlpAction,
    DlpPolicy,
    DlpProfile,
    Gateway,
)

ALL_PROFILES = tuple(BUILT_IN)


def gateway(*policies: DlpPolicy, profiles: tuple[DlpProfile, ...] = ()) -> Gateway:
    return Gateway(
        account_id=AccountId("main"), id=DEFAULT_GATEWAY, dlp=policies, dlp_profiles=profiles
    )


@cache
def compiled(action: DlpAction = "REDACT", *profiles: str) -> CompiledPolicies:
    policy = DlpPolicy(id="policy", action=action, profiles=profiles or ALL_PROFILES)
    return compile_policies(gateway(policy))


def custom(profile: DlpProfile, action: DlpAction = "REDACT") -> CompiledPolicies:
    policy = DlpPolicy(id="policy", action=action, profiles=(profile.id,))
    return compile_policies(gateway(policy, profiles=(profile,)))


def side(policies: CompiledPolicies) -> SidePolicies:
    assert policies.response is not None
    return policies.response


def redacted(text: str, policies: CompiledPolicies | None = None) -> str:
    return scan_texts(side(policies or compiled()), [text]).texts[0]


def found(text: str) -> list[str]:
    raw = text.encode()
    return [
        f"{finding.entry_id}:{raw[finding.start : finding.end].decode()}"
        for finding in scan_texts(side(compiled()), [text]).findings
    ]


def event(value: Any, kind: str | None = None) -> bytes:
    head = f"event: {kind}\n" if kind else ""
    return f"{head}data: {json.dumps(value)}\n\n".encode()


def values(stream: bytes) -> list[Any]:
    datas = [line[6:] for line in stream.splitlines() if line.startswith(b"data: ")]
    return [json.loads(data) for data in datas if data != b"[DONE]"]


def chat(text: str, index: int = 0, finish: str | None = None) -> bytes:
    delta = {"content": text} if text else {}
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return event({"id": "chatcmpl-1", "model": "m", "choices": [choice]})


def chat_arguments(text: str) -> bytes:
    call = {"index": 0, "function": {"arguments": text}}
    return event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})


def completion(text: str) -> bytes:
    return event({"choices": [{"index": 0, "text": text, "finish_reason": None}]})


def responses(text: str) -> bytes:
    kind = "response.output_text.delta"
    return event({"type": kind, "output_index": 0, "content_index": 0, "delta": text}, kind)


def anthropic(text: str) -> bytes:
    kind = "content_block_delta"
    return event({"type": kind, "index": 0, "delta": {"type": "text_delta", "text": text}}, kind)


def anthropic_json(text: str) -> bytes:
    kind = "content_block_delta"
    delta = {"type": "input_json_delta", "partial_json": text}
    return event({"type": kind, "index": 0, "delta": delta}, kind)


def google(text: str) -> bytes:
    content = {"role": "model", "parts": [{"text": text}]}
    return event({"candidates": [{"index": 0, "content": content}], "modelVersion": "g"})


def workers_ai(text: str) -> bytes:
    return event({"response": text, "p": "abcdef"})


def unknown(text: str) -> bytes:
    return event({"output": {"segments": [{"index": 0, "words": text}]}})


def _chat_text(value: Any) -> str:
    return str(value["choices"][0]["delta"].get("content", ""))


Form = tuple[Callable[[str], bytes], Callable[[Any], str]]
FORMS: Mapping[str, Form] = {
    "chat": (chat, _chat_text),
    "chat-arguments": (
        chat_arguments,
        lambda v: v["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"],
    ),
    "completion": (completion, lambda v: v["choices"][0]["text"]),
    "responses": (responses, lambda v: v["delta"]),
    "anthropic": (anthropic, lambda v: v["delta"]["text"]),
    "anthropic-json": (anthropic_json, lambda v: v["delta"]["partial_json"]),
    "google": (google, lambda v: v["candidates"][0]["content"]["parts"][0]["text"]),
    "workers-ai": (workers_ai, lambda v: v["response"]),
    "unknown": (unknown, lambda v: v["output"]["segments"][0]["words"]),
}


def said(stream: bytes, form: str = "chat") -> str:
    return "".join(FORMS[form][1](value) for value in values(stream))


def through(guard: StreamGuard, chunks: Iterable[bytes]) -> bytes:
    return b"".join([*(guard.feed(chunk) for chunk in chunks), guard.end()])


def streamed(pieces: Iterable[str], policies: CompiledPolicies, form: str = "chat") -> str:
    make = FORMS[form][0]
    guard = StreamGuard(side(policies))
    return said(through(guard, (make(piece) for piece in pieces)), form)
