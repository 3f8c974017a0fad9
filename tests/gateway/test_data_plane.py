"""What a call through the gateway changes and what it must not: bytes, headers, keys, records."""

from __future__ import annotations

import gzip
import random
import time

import httpx2
import pytest

from openworks.ports.calls import CallRecord
from tests.gateway.gateway_server import (
    PROVIDER_KEY,
    TOKEN,
    GatewayServer,
    Place,
    chat_body,
    message_body,
)
from tests.gateway.stand_in import Reply, Request, StandIn, Tokens, chat_stream

_BINARY = bytes(random.Random(3).randbytes(70_000))
_JSON = (("content-type", "application/json"),)
_EVENTS = (("content-type", "text/event-stream"),)
_GZIPPED = gzip.compress(b'{"a": 1}', mtime=0)

_WHOLE = {
    "with a length": Reply(body=b'{ "a" :\t1 }\r\n', headers=_JSON),
    "empty": Reply(body=b"", headers=_JSON),
    "one HTTP chunk": Reply(body=b'{"a":1}', headers=_JSON, chunked=True),
    "many HTTP chunks": Reply(chunks=[b"{", b'"a"', b":", b"1}"], headers=_JSON),
    "ended by the connection": Reply(body=b'{"a":1}', headers=_JSON, unframed=True),
    "HTTP/1.0": Reply(body=b'{"a":1}', headers=_JSON, http10=True),
    "connection: close": Reply(body=b'{"a":1}', headers=_JSON, keep_alive=False),
    "compressed": Reply(body=_GZIPPED, headers=(*_JSON, ("content-encoding", "gzip"))),
    "binary": Reply(body=_BINARY, headers=(("content-type", "audio/mpeg"),)),
    "large": Reply(body=b"[" + b"0," * 4_600_000 + b"0]", headers=_JSON),
    "large in chunks": Reply(chunks=[_BINARY] * 140, headers=(("content-type", "video/mp4"),)),
    "after early hints": Reply(
        body=b'{"a":1}', headers=_JSON, informational=[b"HTTP/1.1 103 Early Hints\r\n\r\n"]
    ),
}


@pytest.mark.parametrize("framing", _WHOLE)
def test_whole_answers_pass_byte_for_byte_in_every_framing(place: Place, framing: str) -> None:
    reply = _WHOLE[framing]
    place.provider.queue(reply)

    with place.server.http.stream(
        "POST", place.url("openai/audio/speech"), json=chat_body(), headers=place.headers()
    ) as answer:
        body = b"".join(answer.iter_raw())

    assert answer.status_code == 200
    assert body == (reply.body if reply.chunks is None else b"".join(reply.chunks))
    assert answer.headers["content-type"] == dict(reply.headers)["content-type"]
    assert answer.headers.get("content-encoding") == dict(reply.headers).get("content-encoding")


@pytest.mark.parametrize("framing", ["chunked", "unframed", "http10"])
@pytest.mark.parametrize("seed", range(4))
def test_streams_pass_byte_for_byte_however_they_are_cut(
    place: Place, seed: int, framing: str
) -> None:
    rng = random.Random(seed)
    whole = b"".join(chat_stream(Tokens(model="mock", prompt=1, completion=40)).chunks or ())
    whole = b": a comment\r\n\r\n" + whole.replace(b"\n\n", b"\r\n\r\n", seed) + b"\n: bye"
    cuts = sorted(rng.sample(range(1, len(whole)), 60))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    place.provider.queue(
        Reply(
            chunks=pieces,
            headers=_EVENTS,
            unframed=framing == "unframed",
            http10=framing == "http10",
            keep_alive=framing == "chunked",
        )
    )

    answer = place.chat(stream=True)

    assert answer.content == whole


def test_answers_without_a_body_stay_without_one(place: Place) -> None:
    place.provider.queue(Reply(status=204, headers=()))

    answer = place.post("openai/files/file-1", b"")

    assert answer.status_code == 204
    assert answer.content == b""


def test_requests_reach_the_provider_byte_for_byte(place: Place) -> None:
    body = (
        b'\t{ "model" : "mock",\r\n "messages":[{"role":"user","content":"\\u00e9 \xc3\xa9"}] }\n'
    )

    place.server.http.request(
        "POST",
        place.url("openai/chat/completions") + "?a=1&b=%2F%20x&a=2",
        content=body,
        headers=place.headers({"content-type": "application/json; charset=utf-8", "x-own": "a b"}),
    )

    (request,) = place.provider.requests
    assert request.body == body
    assert request.target == "/v1/chat/completions?a=1&b=%2F%20x&a=2"
    assert request.header("content-type") == "application/json; charset=utf-8"
    assert request.header("x-own") == "a b"


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH", "PUT", "POST"])
def test_methods_and_encoded_paths_pass_unchanged(place: Place, method: str) -> None:
    place.provider.queue(Reply(body=b"{}"))

    place.server.http.request(
        method, place.url("openai/files/a%2Fb%20c?limit=2"), headers=place.headers()
    )

    (request,) = place.provider.requests
    assert (request.method, request.target) == (method, "/v1/files/a%2Fb%20c?limit=2")


def test_a_head_request_is_answered_without_a_body(place: Place) -> None:
    answer = place.server.http.head(place.url("openai/models"), headers=place.headers())

    assert answer.status_code == 200
    assert answer.content == b""


def _shown(request: Request) -> str:
    head = b"\n".join(name + b": " + value for name, value in request.headers)
    return (head + b"\n" + request.target.encode() + b"\n" + request.body).decode("latin-1")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("openai/chat/completions", "authorization"),
        ("anthropic/messages", "x-api-key"),
        ("google-ai-studio/v1beta/models/gemini-2.5-pro:generateContent", "x-goog-api-key"),
    ],
)
def test_our_key_never_reaches_the_provider_and_the_stored_one_does(
    place: Place, path: str, name: str
) -> None:
    place.make("gw")
    place.keep_credential("sk-of-the-provider", provider=path.partition("/")[0])
    bearer = {"authorization": f"Bearer {TOKEN}"}
    spellings = [
        {"cf-aig-authorization": f"Bearer {TOKEN}"},
        bearer,
        {"x-api-key": TOKEN},
        {"x-goog-api-key": TOKEN},
        {**bearer, "x-api-key": TOKEN, "cf-aig-authorization": f"Bearer {TOKEN}"},
    ]

    for headers in spellings:
        answer = place.server.http.post(place.url(path, "gw"), json=message_body(), headers=headers)
        assert answer.status_code in (200, 404), answer.text  # the stand-in knows no Gemini

    assert len(place.provider.requests) == len(spellings)
    for request in place.provider.requests:
        assert TOKEN not in _shown(request)
        assert (request.header(name) or "").removeprefix("Bearer ") == "sk-of-the-provider"


def test_keys_made_here_never_reach_the_provider(place: Place) -> None:
    _, secret = place.server.process.make_key(account=place.account)
    place.make("gw")
    place.keep_credential("sk-of-the-provider")

    answer = place.server.http.post(
        place.url("openai/chat/completions", "gw"),
        json=chat_body(),
        headers={"authorization": f"Bearer {secret}"},
    )

    assert answer.status_code == 200
    (request,) = place.provider.requests
    assert secret not in _shown(request)
    assert request.header("authorization") == "Bearer sk-of-the-provider"


def test_a_callers_own_provider_key_passes_beside_ours(place: Place) -> None:
    assert place.chat().status_code == 200

    (request,) = place.provider.requests
    assert request.header("authorization") == f"Bearer {PROVIDER_KEY}"
    assert TOKEN not in _shown(request)


def test_byok_only_gateways_send_only_stored_keys(place: Place) -> None:
    place.make("gw", byok_only=True)
    place.keep_credential("sk-of-the-provider")

    assert place.chat(gateway="gw").status_code == 200

    (request,) = place.provider.requests
    assert request.header("authorization") == "Bearer sk-of-the-provider"
    assert PROVIDER_KEY not in _shown(request)


def test_byok_only_gateways_without_a_stored_key_refuse(place: Place) -> None:
    place.make("gw", byok_only=True)

    answer = place.chat(gateway="gw")

    assert "openai" in _error(answer, 400, 2040)
    assert not place.provider.requests


def test_byok_only_gateways_send_custom_providers_no_key_of_the_callers(place: Place) -> None:
    place.make("gw", byok_only=True)
    place.server.control(
        "POST",
        "/custom-providers",
        {"name": "Mine", "slug": "mine", "base_url": place.provider.url},
        account=place.account,
    )

    assert place.post("custom-mine/chat/completions", chat_body(), gateway="gw").is_success

    (request,) = place.provider.requests
    assert PROVIDER_KEY not in _shown(request)


def test_an_alias_chooses_the_stored_key(place: Place) -> None:
    place.make("gw")
    place.keep_credential("sk-first", alias="first")
    place.keep_credential("sk-second", alias="second", default=False)

    place.chat(gateway="gw", headers={"cf-aig-byok-alias": "second"})
    unknown = place.chat(gateway="gw", headers={"cf-aig-byok-alias": "third"})

    (request,) = place.provider.requests
    assert request.header("authorization") == "Bearer sk-second"
    assert unknown.status_code == 400
    assert unknown.json()["internalCode"] == 2040


def test_a_rotated_key_is_used_at_once(place: Place) -> None:
    place.make("gw")
    place.keep_credential("sk-old")
    (config,) = place.server.control("GET", "/gateways/gw/provider_configs", account=place.account)
    headers = {"authorization": f"Bearer {TOKEN}"}
    place.chat(gateway="gw", headers=headers)

    place.server.control(
        "PUT",
        f"/gateways/gw/provider_configs/{config['id']}",
        {"secret": "sk-new"},
        account=place.account,
    )
    place.chat(gateway="gw", headers=headers)

    shown = [request.header("authorization") for request in place.provider.requests]
    assert shown == ["Bearer sk-old", "Bearer sk-new"]


def test_headers_of_the_gateway_and_of_the_connection_go_no_further(place: Place) -> None:
    place.chat(
        headers={
            "cf-aig-metadata": '{"team":"red"}',
            "cf-aig-event-id": "event-1",
            "cf-aig-cache-key": "k",
            "cf-connecting-ip": "192.0.2.7",
            "cookie": "session=1",
            "x-forwarded-for": "192.0.2.7",
            "te": "trailers",
        }
    )

    (request,) = place.provider.requests
    names = {name.decode().lower() for name, _ in request.headers}
    assert not {name for name in names if name.startswith("cf-")}
    assert not names & {"cookie", "x-forwarded-for", "te"}
    assert request.header("host") == f"127.0.0.1:{place.provider.port}"


def test_answers_carry_the_providers_headers_and_the_gateways(place: Place) -> None:
    headers = [*_JSON, ("x-request-id", "req_1"), ("x-ratelimit-remaining-requests", "7")]
    headers += [("set-cookie", "a=b"), ("keep-alive", "timeout=5"), ("openai-version", "2020")]
    place.provider.queue(Reply(body=b"{}", headers=headers))

    answer = place.chat(headers={"cf-aig-event-id": "event-1"})

    assert answer.headers["x-request-id"] == "req_1"
    assert answer.headers["x-ratelimit-remaining-requests"] == "7"
    assert answer.headers["openai-version"] == "2020"
    assert "set-cookie" not in answer.headers
    assert "keep-alive" not in answer.headers
    assert answer.headers["cf-aig-step"] == "0"
    assert answer.headers["cf-aig-event-id"] == "event-1"
    assert len(answer.headers["cf-aig-log-id"]) == 32


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 429, 500, 503, 529])
def test_a_providers_errors_pass_unchanged(place: Place, status: int) -> None:
    body = b'{"error": {"message": "No.",   "code": "mine"}}'
    headers = (*_JSON, ("retry-after", "7"))
    place.provider.queue(Reply(status=status, body=body, headers=headers))

    answer = place.chat(f"mock-status-{status}")

    assert (answer.status_code, answer.content) == (status, body)
    assert answer.headers["retry-after"] == "7"
    record = place.record_of(answer)
    assert (record.status, record.outcome, record.cost_usd) == (status, "error", 0)


def _error(answer: object, status: int, number: int) -> str:
    body = answer.json()  # type: ignore[attr-defined]
    assert answer.status_code == status, body  # type: ignore[attr-defined]
    message: str = body["message"]
    assert body == {
        "success": False,
        "result": [],
        "messages": [],
        "error": [{"code": number, "message": message}],
        "name": "AiGatewayError",
        "httpCode": status,
        "internalCode": number,
        "message": message,
    }
    return message


def test_refusals_have_the_gateways_own_error_body(place: Place) -> None:
    http, body = place.server.http, chat_body()
    chat = place.url("openai/chat/completions")

    nobody = http.post(chat, json=body)
    _error(nobody, 401, 2009)
    assert nobody.headers["www-authenticate"] == "Bearer"
    _error(http.post(chat, json=body, headers={"authorization": "Bearer sk-ow-no"}), 401, 2009)
    assert "nothere" in _error(place.chat(gateway="nothere"), 400, 2001)
    assert "opnai" in _error(place.post("opnai/chat/completions", body), 404, 2008)
    assert "'x'" in _error(place.chat(headers={"cf-aig-cache-ttl": "x"}), 400, 2002)
    _error(place.post("", b"{"), 400, 2019)
    _error(http.get(f"{place.server.url}/gateway/v1/only-one"), 404, 2002)
    assert not place.provider.requests


def test_a_provider_that_is_not_there_is_a_502(place: Place) -> None:
    place.server.control(
        "POST",
        "/custom-providers",
        {"name": "Gone", "slug": "gone", "base_url": "http://127.0.0.1:9/v1"},
        account=place.account,
    )

    answer = place.post("custom-gone/chat/completions", chat_body())

    assert "127.0.0.1" in _error(answer, 502, 2005)
    record = place.record_of(answer)
    assert (record.outcome, record.status, record.attempts) == ("error", 502, 1)
    assert record.error_code == "upstream_failed"


def test_a_provider_that_hangs_is_a_504_after_the_callers_timeout(place: Place) -> None:
    began_s = time.monotonic()
    answer = place.chat("mock-h", headers={"cf-aig-request-timeout": "200"})

    _error(answer, 504, 2005)
    assert 0.15 < time.monotonic() - began_s < 5
    assert place.record_of(answer).error_code == "provider_timeout"


def test_a_provider_that_resets_a_whole_answer_is_a_502(place: Place) -> None:
    answer = place.chat("mock-k1")

    _error(answer, 502, 2005)
    assert place.record_of(answer).usage.completion_tokens == 0


def test_a_custom_provider_is_called_with_its_own_headers(place: Place) -> None:
    place.server.control(
        "POST",
        "/custom-providers",
        {
            "name": "Mine",
            "slug": "mine",
            "base_url": f"{place.provider.url}/deep/base",
            "headers": '{"x-team": "red"}',
        },
        account=place.account,
    )
    place.provider.queue(Reply(body=b'{"ok": 1}'))

    answer = place.post("custom-mine/v2/anything", b'{"q":1}')

    assert answer.content == b'{"ok": 1}'
    (request,) = place.provider.requests
    assert request.path == "/deep/base/v2/anything"
    assert request.header("x-team") == "red"


def test_keys_open_only_their_own_account(place: Place) -> None:
    _, secret = place.server.process.make_key(account=place.account)
    other = Place(place.server, f"{place.account}-other")
    headers = {"cf-aig-authorization": f"Bearer {secret}"}

    own = place.chat(headers=headers)
    default = Place(place.server, "default").chat(headers=headers)
    foreign = other.chat(headers=headers)

    assert own.status_code == 200
    assert default.status_code == 200
    assert place.record_of(default).account_id == place.account
    _error(foreign, 403, 2009)
    assert len(place.provider.requests) == 2


def test_gateways_credentials_and_routes_of_one_account_are_nothing_to_another(
    place: Place,
) -> None:
    place.make("gw")
    place.keep_credential("sk-of-the-first")
    other = Place(place.server, f"{place.account}-other")

    assert other.chat(gateway="gw").status_code == 400
    other.make("gw")
    other.chat(gateway="gw", headers={"authorization": f"Bearer {TOKEN}"})

    assert all("sk-of-the-first" not in _shown(r) for r in place.provider.requests)


@pytest.mark.parametrize(
    ("allowed", "status"),
    [("mock", 200), ("openai/mock", 200), ("openai/*", 200), ("mock-other", 403)],
)
def test_a_key_may_use_only_its_models(place: Place, allowed: str, status: int) -> None:
    _, secret = place.server.process.make_key(account=place.account, allowed_models=(allowed,))

    answer = place.chat(headers={"cf-aig-authorization": f"Bearer {secret}"})

    assert answer.status_code == status
    assert len(place.provider.requests) == (status == 200)
    if status == 403:
        assert "openai/mock" in _error(answer, 403, 2009)


_NAMELESS = {
    "no model": b'{"messages":[]}',
    "a number": b'{"model":5}',
    "an array": b'[{"model":"secret"}]',
    "a byte order mark": b'\xef\xbb\xbf{"model":"secret"}',
    "UTF-16": '{"model":"secret"}'.encode("utf-16"),
    "UTF-32": '{"model":"secret"}'.encode("utf-32"),
    "what is no JSON": b'{"model":"secret","x":NaN}',
    "an escaped name": b'{"mod\\u0065l":"secret"}',
    "the last of two": b'{"model":"mock","model":"secret"}',
    "a form": b"--b\r\ncontent-disposition: form-data; name=model \r\n\r\nsecret\r\n--b--\r\n",
}


@pytest.mark.parametrize("how", _NAMELESS)
def test_a_key_of_some_models_cannot_hide_which_one_it_asks_for(place: Place, how: str) -> None:
    _, secret = place.server.process.make_key(account=place.account, allowed_models=("mock",))

    answer = place.post(
        "openai/chat/completions",
        _NAMELESS[how],
        headers={"cf-aig-authorization": f"Bearer {secret}"},
    )

    assert answer.status_code in (400, 403)
    assert not place.provider.requests


def test_a_key_of_some_models_may_upload_and_look(place: Place) -> None:
    _, secret = place.server.process.make_key(account=place.account, allowed_models=("mock",))
    headers = place.headers({"cf-aig-authorization": f"Bearer {secret}"})
    place.provider.script(lambda _: Reply(body=b"{}"))

    url, http = place.url("openai/files"), place.server.http
    upload = http.post(url, headers=headers, files={"file": ("a.jsonl", b"{}")})
    look = http.get(url, headers=headers)

    assert (upload.status_code, look.status_code) == (200, 200)


@pytest.mark.parametrize("status", [600, 799, 999])
def test_a_status_that_http_does_not_know_is_a_502(place: Place, status: int) -> None:
    place.provider.queue(Reply(status=status, body=b"{}"))

    _error(place.chat(f"mock-{status}"), 502, 2005)


def test_redirects_are_the_callers_to_follow(place: Place) -> None:
    place.provider.queue(Reply(status=307, headers=(("location", "http://192.0.2.1/"),)))

    answer = place.chat()

    assert (answer.status_code, answer.headers["location"]) == (307, "http://192.0.2.1/")


@pytest.mark.parametrize("origin", ["", "http://localhost"])
def test_a_large_answer_that_breaks_is_cut_so_that_the_caller_can_tell(
    place: Place, origin: str
) -> None:
    place.provider.queue(
        Reply(
            headers=(("content-type", "audio/mpeg"),),
            chunks=[_BINARY] * 200,
            cut_after_chunks=170,  # in order: a reset takes back what was not read yet
        )
    )

    with pytest.raises(httpx2.RemoteProtocolError):
        place.post(
            "openai/audio/speech", chat_body(), headers={"origin": origin} if origin else None
        )

    (record,) = place.records(1)
    assert (record.outcome, record.error_code) == ("error", "upstream_failed")


def test_a_whole_call_leaves_one_record_with_the_providers_numbers(place: Place) -> None:
    key_id, secret = place.server.process.make_key(account=place.account)

    answer = place.chat(
        "gpt-4o-mini",
        headers={
            "cf-aig-authorization": f"Bearer {secret}",
            "cf-aig-metadata": '{"team":"red","n":3,"deep":{"a":1}}',
            "cf-aig-event-id": "event-9",
        },
    )

    (record,) = place.records(1)
    assert record.id == answer.headers["cf-aig-log-id"]
    assert (record.provider, record.model) == ("openai", "gpt-4o-mini")
    assert record.endpoint == "chat/completions"
    assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (120, 64)
    assert record.cost_usd == pytest.approx((120 * 0.15 + 64 * 0.6) / 1e6, abs=1e-12)
    assert (record.status, record.outcome, record.error_code) == (200, "ok", None)
    assert (record.key_id, record.gateway_id) == (key_id, "default")
    assert (record.event_id, record.metadata) == ("event-9", {"team": "red", "n": 3})
    assert (record.cached, record.step, record.attempts) == (False, 0, 1)
    assert (record.stream, record.estimated) == (False, False)


@pytest.mark.parametrize("path", ["openai/chat/completions", "anthropic/messages"])
def test_a_stream_leaves_one_record_with_the_providers_numbers(place: Place, path: str) -> None:
    body = message_body("mock-t7-p11", stream=True, stream_options={"include_usage": True})

    answer = place.post(path, body)

    record = place.record_of(answer)
    assert record.stream
    assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (11, 7)
    assert not record.estimated
    assert record.first_token_ms is not None
    assert record.first_token_ms <= record.duration_ms


def test_a_stream_that_says_no_usage_is_estimated_and_says_so(place: Place) -> None:
    answer = place.chat("mock-t20", stream=True)

    record = place.record_of(answer)
    assert record.estimated
    assert 15 <= record.usage.completion_tokens <= 60
    assert record.usage.prompt_tokens > 0


def test_a_callers_own_prices_make_the_cost(place: Place) -> None:
    per_token = place.chat(
        "gpt-4o-mini",
        headers={"cf-aig-custom-cost": '{"per_token_in":0.001,"per_token_out":0.01}'},
    )
    total = place.chat("gpt-4o-mini", headers={"cf-aig-custom-cost": '{"total_cost":2.5}'})

    record = place.record_of(per_token)
    assert record.cost_usd == pytest.approx(0.76)
    assert record.custom_cost
    assert place.record_of(total).cost_usd == 2.5


def test_a_call_that_is_not_to_be_logged_counts_in_the_sums_alone(place: Place) -> None:
    silent = place.chat("gpt-4o-mini", headers={"cf-aig-collect-log": "false"})
    told = place.chat("gpt-4o-mini")

    (record,) = place.records(1)
    assert record.id == told.headers["cf-aig-log-id"] != silent.headers["cf-aig-log-id"]
    (row,) = [row for row in place.server.sums() if row.group == place.account]
    assert (row.calls, row.usage.prompt_tokens) == (2, 240)


def test_refused_calls_leave_a_record_too(place: Place) -> None:
    _, secret = place.server.process.make_key(account=place.account, allowed_models=("other",))

    answer = place.chat(headers={"cf-aig-authorization": f"Bearer {secret}"})

    record: CallRecord = place.record_of(answer)
    assert (record.outcome, record.status) == ("error", 403)
    assert record.error_code == "model_not_allowed"
    assert (record.attempts, record.cost_usd) == (0, 0)


def test_log_ids_are_unique_and_sort_by_time(place: Place) -> None:
    ids = [place.chat().headers["cf-aig-log-id"] for _ in range(5)]

    assert len(set(ids)) == 5
    assert [each[:12] for each in ids] == sorted(each[:12] for each in ids)


def test_the_path_names_the_gateway_whatever_the_header_says(
    gateway_server: GatewayServer, place: Place, provider: StandIn
) -> None:
    place.make("gw")

    answer = place.chat(headers={"cf-aig-gateway-id": "gw"})

    assert place.record_of(answer).gateway_id == "default"
