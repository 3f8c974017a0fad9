from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import AppError, InvalidRequestError, NotFoundError, RateLimitError
from openworks.core.json import JsonObject
from openworks.wire.cloudflare.envelope import timestamp
from openworks.wire.cloudflare.errors import error_body, number_of
from openworks.wire.cloudflare.gateway import REQUIRED, GatewayShape, defaults, parse_gateway
from openworks.wire.cloudflare.nouns import parse_headers

BODY: JsonObject = {name: defaults()[name] for name in REQUIRED}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(name=st.sampled_from(sorted(GatewayShape.model_fields)), value=JSON)
def test_any_value_of_any_field_is_taken_as_it_is_or_refused_by_name(name: str, value: Any) -> None:
    refusal, parsed = None, defaults()
    try:
        parsed = parse_gateway({**BODY, name: value}, before=defaults())
    except InvalidRequestError as error:
        refusal = error

    assert parse_gateway(parsed, before=defaults()) == parsed
    if refusal is not None:
        assert refusal.message.endswith(".")
        assert refusal.param is None or refusal.param.split(".")[0] == name


@given(body=JSON)
def test_any_body_is_parsed_or_refused(body: Any) -> None:
    with pytest.raises(InvalidRequestError):
        parse_gateway(body, before=defaults())


def test_field_that_is_left_out_stays_as_it_was() -> None:
    before = parse_gateway({**BODY, "retry_delay": 5, "zdr": True}, before=defaults())

    after = parse_gateway({**BODY, "retry_delay": None}, before=before)

    assert (after["retry_delay"], after["zdr"]) == (None, True)


def test_what_answers_add_may_be_sent_back() -> None:
    read_only: JsonObject = {
        "created_at": "2026",
        "modified_at": "2026",
        "is_default": True,
        "id": "gw",
    }

    assert parse_gateway({**BODY, **read_only}, before=defaults()) == defaults()


def test_spend_rule_without_an_id_gets_one_that_is_free() -> None:
    rule: JsonObject = {"limit": 1, "limitType": "cost", "window": 60}
    limits: JsonObject = {"rules": [rule, {**rule, "id": "rule-1"}, rule]}

    parsed: Any = parse_gateway({**BODY, "spend_limits": limits}, before=defaults())

    ids = [item["id"] for item in parsed["spend_limits"]["rules"]]
    assert ids == ["rule-2", "rule-1", "rule-3"]


@pytest.mark.parametrize(
    "fields",
    [
        {"otel": [{"url": "https://x", "headers": {}, "authorization": 12345}]},
        {"otel": [{"url": "secret-12345", "headers": {}}]},
        {"otel": [{"url": "https://x", "headers": {"a": ["secret-12345"]}}]},
        {"stripe": {"authorization": "secret-12345"}},
        {"stripe": "secret-12345"},
    ],
)
def test_no_message_repeats_what_may_be_secret(fields: JsonObject) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_gateway({**BODY, **fields}, before=defaults())

    assert "12345" not in caught.value.message


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{"limit": 0, "limitType": "cost", "window": 1}], "greater than 0"),
        ([{"limit": 1, "limitType": "cost", "window": 0}], "greater than or equal to 1"),
        ([{"limit": 1, "limitType": "euros", "window": 1}], "'cost' or 'tokens'"),
        ([{"limit": 1, "limitType": "cost", "window": 1, "id": "a"}] * 2, "two of 'rules'"),
        ([{"limit": 1, "limitType": "cost", "window": 1}] * 21, "at most 20 items"),
    ],
)
def test_wrong_spend_rule_is_refused(rules: list[JsonObject], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        parse_gateway({**BODY, "spend_limits": {"rules": [*rules]}}, before=defaults())


@pytest.mark.parametrize(
    "text", ["[]", "x", '{"a": 1}', '{"a b": "c"}', '{"a": "b\\r\\nc: d"}', '{"": ""}']
)
def test_headers_that_would_break_out_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|cannot carry"):
        parse_headers(text)


def test_times_are_written_in_utc() -> None:
    assert timestamp(1_790_000_000.25) == "2026-09-21T14:13:20.250000Z"


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (InvalidRequestError("x", code="anything"), 7001),
        (NotFoundError("x"), 7002),
        (NotFoundError("x", code="anything"), 7002),
        (RateLimitError("x"), 10429),
        (AppError("x"), 10500),
    ],
)
def test_errors_have_cloudflares_numbers(error: AppError, number: int) -> None:
    assert number_of(error) == number


def test_error_points_at_its_field() -> None:
    body = error_body(InvalidRequestError("No.", param="otel.0.url"))

    assert body == {
        "success": False,
        "errors": [{"code": 7001, "message": "No.", "source": {"pointer": "/otel/0/url"}}],
        "messages": [],
        "result": None,
    }
