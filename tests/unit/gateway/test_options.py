from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.options import (
    CustomCost,
    Options,
    custom_cost,
    flat_metadata,
    forwarded,
    returned_headers,
    split_headers,
)


def read(name: str, value: str) -> Options:
    return split_headers([(name.encode(), value.encode())])[0]


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("cf-aig-cache-ttl", "3600", "cache_ttl_s", 3600),
        ("cf-cache-ttl", "60", "cache_ttl_s", 60),
        ("cf-aig-cache-ttl", "0", "cache_ttl_s", 0),
        ("cf-aig-skip-cache", "true", "skip_cache", True),
        ("cf-skip-cache", "FALSE", "skip_cache", False),
        ("cf-aig-cache-key", "k", "cache_key", b"k"),
        ("cf-aig-request-timeout", "1500", "timeout_ms", 1500),
        ("cf-aig-max-attempts", "5", "max_attempts", 5),
        ("cf-aig-retry-delay", "5000", "retry_delay_ms", 5000),
        ("cf-aig-backoff", "linear", "backoff", "linear"),
        ("cf-aig-collect-log", "false", "collect_log", False),
        ("cf-aig-collect-log-payload", "1", "collect_payload", True),
        ("cf-aig-event-id", "évt", "event_id", "évt"),
        ("cf-aig-byok-alias", "a,b", "byok_alias", "a,b"),
        ("cf-aig-gateway-id", "gw", "gateway_id", "gw"),
        ("cf-aig-session-id", "ses_1", "session_id", "ses_1"),
        ("cf-aig-metadata", '{"a":1,"b":true}', "metadata", {"a": 1, "b": True}),
        ("cf-aig-custom-cost", '{"total_cost":0}', "custom_cost", CustomCost(total_usd=0.0)),
    ],
)
def test_header_is_read(name: str, value: str, field: str, expected: object) -> None:
    assert getattr(read(name, value), field) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cf-aig-cache-ttl", "-1"),
        ("cf-aig-cache-ttl", "1.5"),
        ("cf-aig-cache-ttl", ""),
        ("cf-aig-cache-ttl", "9" * 400),
        ("cf-aig-request-timeout", "soon"),
        ("cf-aig-max-attempts", "6"),
        ("cf-aig-retry-delay", "60001"),
        ("cf-aig-backoff", "quadratic"),
        ("cf-aig-skip-cache", "maybe"),
        ("cf-aig-metadata", "{"),
        ("cf-aig-metadata", "[1]"),
        ("cf-aig-metadata", "[" * 5000),
        ("cf-aig-custom-cost", "{}"),
        ("cf-aig-custom-cost", '{"total_cost": -1}'),
        ("cf-aig-custom-cost", '{"total_cost": 1e300}'),
        ("cf-aig-custom-cost", '{"total_cost": true}'),
        ("cf-aig-custom-cost", '{"total_cost": 1, "per_token_in": 1}'),
        ("cf-aig-custom-cost", '{"per_token": 1}'),
        ("cf-aig-event-id", "x" * 1025),
        ("cf-aig-otel-trace-id", "zz"),
        ("cf-aig-otel-trace-id", "0" * 32),
        ("cf-aig-otel-parent-span-id", "a" * 17),
    ],
)
def test_header_without_sense_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidRequestError, match=name) as caught:
        read(name, value)
    assert caught.value.param == name
    assert len(caught.value.message) < 400


@given(name=st.sampled_from(["cache-ttl", "metadata", "custom-cost", "backoff", "event-id"]),
       value=st.binary(max_size=200))  # fmt: skip
def test_no_value_does_worse_than_a_typed_error(name: str, value: bytes) -> None:
    refused: InvalidRequestError | None = None
    try:
        split_headers([(f"cf-aig-{name}".encode(), value)])
    except InvalidRequestError as error:
        refused = error
    assert refused is None or refused.param == f"cf-aig-{name}"


def test_provider_sees_no_header_of_ours_and_none_of_the_connection() -> None:
    kept = [
        (b"authorization", b"a"),
        (b"content-type", b"b"),
        (b"anthropic-version", b"c"),
        (b"x-custom", b"1"),
        (b"x-custom", b"2"),
    ]
    dropped = (
        b"host", b"content-length", b"connection", b"transfer-encoding", b"te", b"upgrade",
        b"proxy-authorization", b"cookie", b"accept-encoding", b"expect", b"cf-aig-authorization",
        b"cf-aig-unknown", b"cf-connecting-ip", b"x-forwarded-for", b"x-real-ip",
    )  # fmt: skip
    options, forward = split_headers([*kept, *((name, b"x") for name in dropped if name != b"te")])
    assert forward == kept
    assert options.authorization == b"x"
    assert forwarded([*kept, (b"accept-encoding", b"gzip"), (b"cookie", b"a")]) == kept


def test_caller_sees_no_header_of_the_providers_connection() -> None:
    kept = [(b"content-type", b"a"), (b"x-request-id", b"b"), (b"content-encoding", b"br")]
    dropped = [(b"content-length", b"1"), (b"transfer-encoding", b"chunked"), (b"set-cookie", b"a")]
    assert returned_headers([*kept, *dropped]) == kept


def test_options_go_over_others_where_they_speak() -> None:
    base = Options(cache_ttl_s=60, skip_cache=True, max_attempts=3)
    over = Options(skip_cache=False, cache_ttl_s=0).over(base)
    assert (over.cache_ttl_s, over.skip_cache, over.max_attempts) == (0, False, 3)
    assert (base.cache_ttl_s, base.skip_cache) == (60, True)


def test_secret_is_not_in_a_repr() -> None:
    assert "sesame" not in repr(read("cf-aig-authorization", "Bearer sesame"))


def test_nested_metadata_is_left_out_before_counting() -> None:
    given: JsonValue = {"a": 1, "b": "x", "c": None, "d": {}, "e": [1], "f": 1.5, "g": False}
    assert flat_metadata(given, "metadata") == {"a": 1, "b": "x", "f": 1.5, "g": False}


def test_the_first_five_entries_count() -> None:
    given: JsonObject = {str(number): number for number in range(7)}
    assert flat_metadata(given, "metadata") == {str(number): number for number in range(5)}


def test_long_metadata_is_cut() -> None:
    found = flat_metadata({"k" * 300: "v" * 2000}, "metadata")
    assert found == {"k" * 256: "v" * 1024}


def test_price_may_be_for_one_direction() -> None:
    assert custom_cost({"per_token_out": 2}, "customCost") == CustomCost(per_token_out=2.0)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400])
def test_number_that_no_ledger_holds_is_named(number: int) -> None:
    with pytest.raises(InvalidRequestError, match=r"config\.metadata\.a"):
        flat_metadata({"a": number}, "[0].config.metadata")
    assert flat_metadata({"a": 2**63 - 1}, "metadata") == {"a": 2**63 - 1}
