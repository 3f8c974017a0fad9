from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import RateLimitError, StorageError
from openworks.core.ids import AccountId
from openworks.gateway.exchange import Exchange
from openworks.gateway.messages import GatewayAnswer
from openworks.gateway.plane import Opening, account_of, refusal
from openworks.ports.calls import Principal
from openworks.ports.snapshots import CustomProvider
from tests.unit.gateway.exchange_world import (
    ANSWER,
    CHAT,
    KEY,
    World,
    header,
    make_world,
    message,
    principal,
    sent_headers,
    snapshot,
    stored,
)


@pytest.fixture
def world() -> World:
    return make_world()


def number(answer: GatewayAnswer) -> int:
    found: int = json.loads(answer.body or b"")["internalCode"]
    return found


async def test_known_caller_of_a_known_gateway_begins_at_once(world: World) -> None:
    assert isinstance(world.begin(), Exchange)


@pytest.mark.parametrize("stale", ["callers", "snapshots"])
async def test_what_is_not_in_memory_is_asked_for(world: World, stale: str) -> None:
    getattr(world, stale).is_fresh = False
    begun = world.begin()
    assert isinstance(begun, Opening)
    begun.abandon()
    answer = await begun.run()
    assert answer.body == ANSWER
    assert world.record.key_id == "key_1"


async def test_unknown_secret_is_a_401_that_does_not_repeat_it(world: World) -> None:
    answer = await world.call(key="sk-ow-nobodys-secret")
    assert answer.status == 401
    assert number(answer) == 2009
    assert header(answer, b"www-authenticate") == b"Bearer"
    assert b"nobodys" not in (answer.body or b"")
    assert not world.provider.requests


async def test_missing_secret_is_a_401(world: World) -> None:
    answer = await world.call(key=None)
    assert answer.status == 401
    assert "cf-aig-authorization" in message(answer)


async def test_gateway_that_does_not_exist_is_named(world: World) -> None:
    answer = await world.call(gateway="nobody")
    assert number(answer) == 2001
    assert "'nobody'" in message(answer)


async def test_key_without_the_scope_for_calls_is_refused(world: World) -> None:
    world.callers.by_secret[KEY] = replace(principal(), scopes=frozenset({"admin"}))
    assert (await world.call()).status == 403


async def test_database_that_is_away_is_told(world: World) -> None:
    async def gone(secret: str | None) -> Principal:
        raise StorageError("The database is away.", retry_after_s=1.4)

    world.callers.is_fresh = False
    world.callers.authenticate = gone  # type: ignore[method-assign]
    answer = await world.call()
    assert answer.status == 503
    assert header(answer, b"retry-after") is not None


# Whose account.


def test_key_is_for_its_own_account_alone() -> None:
    mine = principal(AccountId("acme"))
    assert account_of(mine, "acme") == account_of(mine, "default") == "acme"
    with pytest.raises(Exception, match="'other'"):
        account_of(mine, "other")


def test_owners_token_is_for_every_account() -> None:
    owner = Principal(account_id=AccountId("default"))
    assert account_of(owner, "other") == "other"


async def test_path_of_another_account_is_refused(world: World) -> None:
    other = AccountId("other")
    world.snapshots.by_place[(other, snapshot().gateway.id)] = snapshot(account=other)
    answer = await world.call(account="other")
    assert answer.status == 403
    assert not world.provider.requests
    world.callers.is_fresh = False
    assert (await world.call(account="other")).status == 403


async def test_path_names_the_gateway_whatever_the_header_says(world: World) -> None:
    world.set()
    second = snapshot(gateway_id="second")
    world.snapshots.by_place[(second.gateway.account_id, second.gateway.id)] = second
    await world.whole(headers={"cf-aig-gateway-id": "second"})
    assert world.record.gateway_id != "second"


# Strangers.


@pytest.fixture
def opened(world: World) -> World:
    world.set(authentication=False, cache_ttl_s=60, credentials=[stored("sk-stored")])
    return world


async def test_stranger_uses_the_policy_with_a_credential_of_their_own(opened: World) -> None:
    assert await opened.whole(key=None) == ANSWER
    assert sent_headers(opened.provider.requests[0])[b"authorization"] == b"Bearer sk-theirs"
    assert opened.record.key_id is None


async def test_stranger_never_spends_a_stored_credential(opened: World) -> None:
    await opened.whole(key=None, headers={"authorization": ""})
    await opened.whole(key=None, headers={"authorization": "", "cf-aig-byok-alias": "default"})
    for request in opened.provider.requests:
        assert b"authorization" not in sent_headers(request)


async def test_stranger_gets_no_answer_that_was_bought_with_a_stored_credential(
    opened: World,
) -> None:
    await opened.whole(headers={"authorization": ""})
    answer = await opened.call(key=None, headers={"authorization": ""})
    assert header(answer, b"cf-aig-cache-status") == b"MISS"


async def test_stranger_may_not_ask_models_of_this_server(opened: World) -> None:
    path = "workers-ai/v1/chat/completions"
    answer = await opened.call(key=None, path=path)
    assert answer.status == 401
    await opened.whole(path=path)
    answer = await opened.call(key=None, path=path)
    assert answer.status == 401
    assert len(opened.inside.requests) == 1


async def test_stranger_may_not_use_the_headers_of_a_custom_provider(opened: World) -> None:
    mine = CustomProvider(
        slug="mine",
        name="Mine",
        base_url="https://example.com/v1",
        enabled=True,
        headers={"x-secret": "ours"},
    )
    (place,) = opened.snapshots.by_place
    opened.snapshots.by_place[place] = replace(
        opened.snapshots.by_place[place], custom_providers={"mine": mine}
    )
    path = "custom-mine/chat/completions"
    assert (await opened.call(key=None, path=path)).status == 401
    assert not opened.provider.requests
    await opened.whole(path=path)
    assert sent_headers(opened.provider.requests[0])[b"x-secret"] == b"ours"


async def test_stranger_with_a_wrong_key_is_refused(opened: World) -> None:
    assert (await opened.call(key="sk-ow-wrong")).status == 401


async def test_strangers_gateway_is_the_one_of_the_path(opened: World) -> None:
    assert (await opened.call(key=None, account="default")).status == 401


async def test_stranger_makes_no_gateway_in_an_account_of_their_own_choice(opened: World) -> None:
    answer = await opened.call(key=None, account="made-up", gateway="default")
    assert answer.status == 401
    assert opened.snapshots.asked == []


# Whatever comes.


@given(
    body=st.one_of(st.binary(max_size=60), st.sampled_from([
        b'[{"provider":"\xff"}]', b"[" * 50_000, b'{"model":"\xff"}', b'{"model":{}}',
        b'{"max_tokens":1e400}', b'{"model":"dynamic/\\u0000"}', b'[{"provider":"openai"}]',
    ])),
    path=st.sampled_from(["", "compat/chat/completions", "compat/x", "openai/chat/completions",
                          "nobody/x", "custom-/x", "azure-openai/x", "aws-bedrock/x",
                          "workers-ai/@cf/x", "openai/../x", "google-vertex-ai/v1/x"]),
    headers=st.dictionaries(
        st.sampled_from(["cf-aig-metadata", "cf-aig-cache-ttl", "cf-aig-byok-alias",
                         "cf-aig-gateway-id", "cf-aig-event-id", "cf-aig-custom-cost"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=20),
    ),
)  # fmt: skip
async def test_nothing_makes_the_plane_raise_and_every_call_is_recorded_once(
    body: bytes, path: str, headers: dict[str, str]
) -> None:
    world = make_world()
    begun = world.plane.begin(world.request(body, path=path, headers=headers))
    answer = begun if isinstance(begun, GatewayAnswer) else await begun.run()
    if answer.chunks is not None:
        await answer.chunks.aclose()
    assert len(world.recorder.records) <= 1
    assert len(world.recorder.records) == 1 or answer.status in (400, 404)
    assert world.provider.open == 0
    for _, value in answer.headers:
        assert b"\r" not in value
        assert b"\n" not in value


def test_refusal_says_when_to_come_back() -> None:
    answer = refusal(RateLimitError("Later.", retry_after_s=0.2))
    assert header(answer, b"retry-after") == b"1"
    assert answer.status == 429


async def test_ids_sort_by_time_and_differ(world: World) -> None:
    for _ in range(3):
        await world.whole({**CHAT, "n": 1})
        world.clock.advance(0.01)
    ids = [record.id for record in world.recorder.records]
    assert ids == sorted(set(ids))
    assert {len(each) for each in ids} == {32}
