from __future__ import annotations

import json
from typing import Any

import pytest

from openworks.core.errors import AppError, InvalidRequestError, NotFoundError
from openworks.gateway.messages import GatewayRequest
from openworks.gateway.options import CustomCost, Options
from openworks.gateway.policy import Policy
from openworks.gateway.providers.registry import Providers
from openworks.gateway.steps import (
    MAX_STEPS,
    Step,
    compat_step,
    config_options,
    native_step,
    read_object,
    split_model,
    universal_items,
    universal_step,
)
from tests.fakes import FakeClock
from tests.unit.gateway.exchange_world import CHAT, snapshot, stored

POLICY = Policy(snapshot(), Providers(), moderator=None, allow_private=False)


def request_of(body: Any, *, endpoint: str = "", provider: str = "") -> GatewayRequest:
    return GatewayRequest(
        method=b"POST",
        account="acme",
        gateway="gw",
        provider=provider,
        endpoint=endpoint,
        query=b"",
        headers=[],
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        route="/",
    )


def steps_of(body: Any, options: Options | None = None) -> list[Step]:
    items = universal_items(request_of(body), options or Options())
    return [universal_step(item, POLICY) for item in items]


STEP = {"provider": "openai", "endpoint": "chat/completions", "query": CHAT}


def test_array_and_single_object_are_the_same() -> None:
    (one,), (other,) = steps_of([STEP]), steps_of(STEP)
    assert (one.body, one.endpoint, one.peek) == (other.body, other.endpoint, other.peek)
    assert one.peek.model == "gpt-4.1"


def test_step_is_sent_the_bytes_of_its_query() -> None:
    body = b'[{"provider":"openai","endpoint":"/v1/x?a=1","query": {"b" :\t1.0,  "a":2} }]'
    (step,) = steps_of(body)
    assert step.body == b'{"b" :\t1.0,  "a":2}'
    assert (step.endpoint, step.query) == ("v1/x", b"a=1")
    assert (b"content-type", b"application/json") in step.headers


def test_headers_of_a_step_are_its_own() -> None:
    headers = {"Authorization": "Bearer sk", "X-A": 1, "x-none": None, "Host": "evil", "TE": "x"}
    (step,) = steps_of({**STEP, "headers": headers})
    assert step.headers == [
        (b"authorization", b"Bearer sk"),
        (b"x-a", b"1"),
        (b"content-type", b"application/json"),
    ]
    assert step.brought_credential


def test_none_in_the_place_of_a_credential_is_none() -> None:
    (step,) = steps_of({**STEP, "headers": {"authorization": None}})
    assert not step.brought_credential


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"[1]",
        b"{}",
        b'"x"',
        b'[{"provider": 1}]',
        b'[{"provider": "\xff\xfe"}]',
        b'[{"provider": "openai", "endpoint": "\\ud800"}]',
        b'[{"provider": "openai", "query": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]",
        b'[{"provider": "openai", "headers": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}]",
        b'[{"provider": "openai", "headers": {"a\\r\\nb": "c"}}]',
        b'[{"provider": "openai", "headers": {"a": "b\\r\\nc: d"}}]',
        b'[{"provider": "openai", "headers": []}]',
        b'[{"provider": "openai", "config": []}]',
        json.dumps([STEP] * (MAX_STEPS + 1)).encode(),
    ],
)
def test_malformed_steps_are_a_typed_error(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        steps_of(body)


def test_step_without_an_endpoint_is_named_with_its_place() -> None:
    with pytest.raises(InvalidRequestError, match=r"\[1\]\.endpoint") as caught:
        steps_of([STEP, {"provider": "openai"}])
    assert caught.value.param == "[1].endpoint"


def test_unknown_provider_is_named() -> None:
    with pytest.raises(NotFoundError, match="'nobody'"):
        steps_of({**STEP, "provider": "nobody"})


@pytest.mark.parametrize(
    ("config", "field", "expected"),
    [
        ({"requestTimeout": 100}, "timeout_ms", 100),
        ({"maxAttempts": 2}, "max_attempts", 2),
        ({"retryDelay": 10}, "retry_delay_ms", 10),
        ({"backoff": "constant"}, "backoff", "constant"),
        ({"cacheTtl": 60}, "cache_ttl_s", 60),
        ({"skipCache": True}, "skip_cache", True),
        ({"cacheKey": "k"}, "cache_key", b"k"),
        ({"collectLog": False}, "collect_log", False),
        ({"collectLogPayload": False}, "collect_payload", False),
        ({"metadata": {"a": 1}}, "metadata", {"a": 1}),
        ({"customCost": {"total_cost": 1}}, "custom_cost", CustomCost(total_usd=1.0)),
        ({"eventId": "e"}, "event_id", "e"),
        ({"byokAlias": "b"}, "byok_alias", "b"),
    ],
)
def test_config_is_read(config: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(config_options(config, "[0].config"), field) == expected


@pytest.mark.parametrize(
    "config",
    [
        {"requestTimeout": "1"},
        {"requestTimeout": 1.5},
        {"requestTimeout": True},
        {"requestTimeout": -1},
        {"maxAttempts": 6},
        {"skipCache": 1},
        {"backoff": "x"},
        {"cacheKey": 1},
        {"metadata": []},
        {"customCost": 1},
        {"eventId": None},
        {"unknown": 1},
    ],
)
def test_config_without_sense_is_named_with_its_place(config: dict[str, Any]) -> None:
    steps = [STEP, {**STEP, "config": config}]
    with pytest.raises(InvalidRequestError) as caught:
        steps_of(steps)
    assert f"[1].config.{next(iter(config))}" in caught.value.message


def test_config_goes_before_headers() -> None:
    (step,) = steps_of({**STEP, "config": {"cacheTtl": 0}}, Options(cache_ttl_s=60, max_attempts=2))
    assert (step.options.cache_ttl_s, step.options.max_attempts) == (0, 2)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai/gpt-4.1", ("openai", "gpt-4.1")),
        ("@cf/meta/llama", ("workers-ai", "@cf/meta/llama")),
        ("workers-ai/@cf/meta/llama", ("workers-ai", "@cf/meta/llama")),
        ("openrouter/a/b", ("openrouter", "a/b")),
    ],
)
def test_model_names_its_provider(model: str, expected: tuple[str, str]) -> None:
    assert split_model(model) == expected


@pytest.mark.parametrize("model", ["", "gpt-4.1", "openai/"])
def test_model_without_a_provider_is_named(model: str) -> None:
    with pytest.raises(InvalidRequestError, match="provider/model"):
        split_model(model)


def compat(
    model: str, policy: Policy = POLICY, *, authorization: bytes = b"", **options: Any
) -> Step:
    brought = [(b"authorization", authorization)] if authorization else []
    return compat_step(
        json.dumps({**CHAT, "model": model}).encode(),
        options.pop("operation", "chat"),
        model,
        policy,
        [(b"content-type", b"application/json"), *brought],
        Options(),
        brought_credential=bool(brought),
        clock=FakeClock(),
    )


def test_model_of_a_provider_that_speaks_openai_is_renamed_in_place() -> None:
    step = compat("groq/llama")
    assert json.loads(step.body) == {**CHAT, "model": "llama"}
    assert step.translator is None
    assert step.endpoint == "chat/completions"


def test_other_providers_are_translated() -> None:
    step = compat("anthropic/claude-opus-4-5")
    assert step.endpoint == "v1/messages"
    assert step.translator is not None
    assert step.peek.model == "claude-opus-4-5"


@pytest.mark.parametrize(
    ("model", "value", "expected"),
    [
        ("groq/llama", b"Bearer sk", (b"authorization", b"Bearer sk")),
        ("anthropic/claude-opus-4-5", b"Bearer sk", (b"x-api-key", b"sk")),
        (
            "anthropic/claude-opus-4-5",
            b"Bearer sk-ant-oat1",
            (b"authorization", b"Bearer sk-ant-oat1"),
        ),
    ],
)
def test_key_of_an_openai_client_goes_where_the_provider_looks_for_it(
    model: str, value: bytes, expected: tuple[bytes, bytes]
) -> None:
    headers = compat(model, authorization=value).headers
    assert expected in headers
    assert sum(name in (b"authorization", b"x-api-key") for name, _ in headers) == 1


@pytest.mark.parametrize("model", ["replicate/a/b", "nobody/x", "google-vertex-ai/gemini"])
def test_provider_that_cannot_be_asked_is_a_typed_error(model: str) -> None:
    with pytest.raises(AppError):
        compat(model)


def test_place_of_a_stored_credential_is_put_into_the_path() -> None:
    secret = json.dumps(
        {
            "client_email": "a@b.c",
            "private_key": "-",
            "project_id": "proj",
            "region": "europe-west4",
        }
    )
    credential = stored(secret, provider="google-vertex-ai")
    policy = Policy(
        snapshot(credentials=[credential]), Providers(), moderator=None, allow_private=False
    )
    step = compat("google-vertex-ai/gemini-2.5-flash", policy)
    assert "projects/proj/locations/europe-west4" in step.endpoint


def test_native_step_is_the_request_itself() -> None:
    provider = Providers().get("openai")
    assert provider is not None
    request = request_of(CHAT, provider="openai", endpoint="v1/chat/completions")
    step = native_step(request, provider, [(b"a", b"b")], Options(), brought_credential=True)
    assert step.body is request.body
    assert step.counts_tokens


def test_digest_of_a_brought_credential_tells_nothing_and_differs() -> None:
    def digest(key: str) -> bytes:
        (step,) = steps_of({**STEP, "headers": {"authorization": key}})
        return step.brought_digest()

    assert digest("a") == digest("a") != digest("b")
    assert b"secret" not in digest("secret")
    (without,) = steps_of(STEP)
    assert without.brought_digest() == b""


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_a_typed_error(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        read_object(body)
