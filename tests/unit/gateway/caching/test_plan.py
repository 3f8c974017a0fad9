from __future__ import annotations

import pytest

from openworks.core.ids import AccountId
from openworks.gateway.caching.plan import CachePlan, may_store, plan, replay, stored_headers
from openworks.ports.gateways import Gateway, GatewayId


def gateway(ttl_s: int = 0, threshold: float | None = None) -> Gateway:
    return Gateway(
        account_id=AccountId("a"),
        id=GatewayId("g"),
        cache_ttl_s=ttl_s,
        semantic_threshold=threshold,
    )


@pytest.mark.parametrize(
    ("of_gateway", "ttl_s", "skip", "key", "expected"),
    [
        (0, None, None, None, None),
        (600, None, None, None, CachePlan(ttl_s=600)),
        (600, 60, None, None, CachePlan(ttl_s=60)),
        (600, 1, None, None, CachePlan(ttl_s=1)),
        (600, 0, None, None, None),
        (600, None, True, None, None),
        (600, None, False, None, CachePlan(ttl_s=600)),
        (0, None, None, b"k", CachePlan(ttl_s=300, custom_key=b"k")),
        (600, None, None, b"k", CachePlan(ttl_s=600, custom_key=b"k")),
        (0, 90, None, b"k", CachePlan(ttl_s=90, custom_key=b"k")),
        (0, 0, None, b"k", None),
        (0, None, None, b"", None),
        (0, 10**9, None, None, CachePlan(ttl_s=31 * 86_400)),
    ],
)
def test_the_call_decides_before_the_gateway(
    of_gateway: int,
    ttl_s: int | None,
    skip: bool | None,
    key: bytes | None,
    expected: CachePlan | None,
) -> None:
    assert plan(gateway(of_gateway), ttl_s=ttl_s, skip=skip, custom_key=key) == expected


def test_likeness_counts_only_without_a_key_of_the_callers_own() -> None:
    alike = plan(gateway(60, 0.9), ttl_s=None, skip=None, custom_key=None)
    named = plan(gateway(60, 0.9), ttl_s=None, skip=None, custom_key=b"k")
    assert alike is not None
    assert alike.semantic_threshold == 0.9
    assert named is not None
    assert named.semantic_threshold is None


@pytest.mark.parametrize(
    ("status", "body", "stream", "expected"),
    [
        (200, b'{"id":"x"}', False, True),
        (200, b"\x89PNG", False, True),
        (200, b"", False, False),
        (201, b'{"id":"x"}', False, False),
        (206, b"half", False, False),
        (429, b'{"id":"x"}', False, False),
        (200, b' { "error": {"message":"no"}}', False, False),
        (200, b'data: {"a":1}\n\ndata: [DONE]\n\n', True, True),
        (200, b'data: {"a":1}\n\n', True, False),
        (200, b'data: {"a":1}\n\ndata: {"error":{}}\n\ndata: [DONE]\n\n', True, False),
        (200, b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True, True),
        (200, b'event: error\ndata: {"type":"error"}\n\n', True, False),
        (200, b'data: {"type":"response.completed","response":{}}\n\n', True, True),
        (200, b'data: {"type":"response.failed"}\n\n', True, False),
        (200, b'data: {"candidates":[{"finishReason": "STOP"}]}\n\n', True, True),
        (200, b'data: {"delta":"say \\"type\\":\\"message_stop\\""}\n\n', True, False),
    ],
)
def test_only_whole_answers_that_ended_well_are_stored(
    status: int, body: bytes, stream: bool, expected: bool
) -> None:
    assert may_store(status, [], body, stream=stream) is expected


def test_a_compressed_stream_is_not_stored_as_its_end_cannot_be_seen() -> None:
    assert not may_store(200, [(b"content-encoding", b"gzip")], b"data: [DONE]", stream=True)


def test_what_was_for_the_first_caller_alone_is_not_stored() -> None:
    kept = stored_headers(
        [
            (b"content-type", b"text/event-stream"),
            (b"set-cookie", b"session=1"),
            (b"x-ratelimit-remaining-requests", b"3"),
            (b"date", b"Fri, 20 Nov 2026 00:00:00 GMT"),
            (b"openai-version", b"2020-10-01"),
        ]
    )
    assert kept == [(b"content-type", b"text/event-stream"), (b"openai-version", b"2020-10-01")]


def test_a_replayed_stream_is_byte_for_byte_what_was_stored() -> None:
    body = bytes(range(256)) * 10
    pieces = replay(body, piece_bytes=1_000)
    assert [len(piece) for piece in pieces] == [1_000, 1_000, 560]
    assert b"".join(pieces) == body
