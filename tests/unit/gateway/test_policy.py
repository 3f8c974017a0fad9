from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from openworks.core.errors import InvalidRequestError, NotFoundError
from openworks.core.json import JsonObject
from openworks.gateway import policy as policy_module
from openworks.gateway.policy import Policies, Policy
from openworks.gateway.providers.registry import Providers
from openworks.ports.gateways import DlpPolicy, Guardrails, LogPolicy, RateLimit
from openworks.ports.snapshots import ActiveRoute, CustomProvider, GatewaySnapshot
from tests.unit.gateway.exchange_world import snapshot, stored

PROVIDERS = Providers()


def policy_of(made: GatewaySnapshot | None = None, *, allow_private: bool = False) -> Policy:
    return Policy(made or snapshot(), PROVIDERS, moderator=None, allow_private=allow_private)


def custom(**fields: Any) -> CustomProvider:
    values = {"name": "Mine", "base_url": "https://example.com/v1", "enabled": True}
    return CustomProvider(slug="mine", **{**values, **fields})


def test_builtin_provider_is_found() -> None:
    assert policy_of().find("openai") is PROVIDERS.get("openai")


def test_custom_provider_is_made_once() -> None:
    policy = policy_of(replace(snapshot(), custom_providers={"mine": custom()}))
    found = policy.find("custom-mine")
    assert found.slug == "custom-mine"
    assert policy.find("custom-mine") is found


@pytest.mark.parametrize("slug", ["nobody", "mine", "custom-other", "custom-", ""])
def test_unknown_provider_is_named(slug: str) -> None:
    policy = policy_of(replace(snapshot(), custom_providers={"mine": custom()}))
    with pytest.raises(NotFoundError, match=f"'{slug}'"):
        policy.find(slug)


def test_provider_that_is_switched_off_is_unknown() -> None:
    policy = policy_of(replace(snapshot(), custom_providers={"mine": custom(enabled=False)}))
    with pytest.raises(NotFoundError):
        policy.find("custom-mine")


def test_private_address_needs_leave() -> None:
    made = replace(snapshot(), custom_providers={"mine": custom(base_url="http://127.0.0.1:9/v1")})
    with pytest.raises(InvalidRequestError):
        policy_of(made).find("custom-mine")
    assert policy_of(made, allow_private=True).find("custom-mine").origin is not None


def test_credentials_are_the_default_one_or_those_of_the_aliases() -> None:
    policy = policy_of(snapshot(credentials=[stored("sk-a"), stored("sk-b", alias="b")]))
    openai = policy.find("openai")
    (default,) = policy.credentials(openai, None)
    assert default.headers == ((b"authorization", b"Bearer sk-a"),)
    assert len(policy.credentials(openai, "default,b")) == 2
    assert policy.credentials(openai, None)[0] is default
    assert policy.credentials(policy.find("groq"), None) == ()


@pytest.mark.parametrize("aliases", ["nobody", "b,nobody", "", ","])
def test_unknown_alias_is_named_and_no_secret_is_told(aliases: str) -> None:
    policy = policy_of(snapshot(credentials=[stored("sk-secret", alias="b")]))
    with pytest.raises(InvalidRequestError) as caught:
        policy.credentials(policy.find("openai"), aliases)
    assert caught.value.code == "unknown_byok_alias"
    assert repr(aliases) in caught.value.message
    assert "sk-secret" not in caught.value.message


def test_stored_secret_that_cannot_be_used_is_not_told() -> None:
    policy = policy_of(snapshot(credentials=[stored("two words of secret")]))
    with pytest.raises(InvalidRequestError) as caught:
        policy.credentials(policy.find("openai"), None)
    assert "secret" not in caught.value.message


def test_made_up_aliases_are_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "_MAX_KEPT", 10)
    policy = policy_of(snapshot(credentials=[stored("sk-a"), stored("sk-b", alias="b")]))
    openai = policy.find("openai")
    for length in range(1, 30):
        assert len(policy.credentials(openai, ",".join(["b"] * length))) == 1
    assert len(policy._credentials) == 10


def test_collect_log_goes_before_the_gateway() -> None:
    policy = policy_of(snapshot(logs=LogPolicy(collect=False, limit=7)))
    assert not policy.logs(None).collect
    assert policy.logs(True) == LogPolicy(collect=True, limit=7)
    assert not policy.logs(False).collect


def test_another_guard_is_another_cache() -> None:
    epochs = {
        policy_of(snapshot(**fields)).cache_epoch
        for fields in (
            {},
            {"cache_epoch": 1},
            {"guardrails": Guardrails(prompt={"S1": "BLOCK"})},
            {"dlp": (DlpPolicy(id="a", action="FLAG", profiles=("financial",)),)},
        )
    }
    assert len(epochs) == 4
    assert policy_of().cache_epoch == policy_of().cache_epoch


def test_limits_and_guards_are_known_beforehand() -> None:
    assert not policy_of().has_limits
    assert policy_of().screen is None
    assert policy_of(snapshot(rate_limits=(RateLimit(limit=1, interval_s=1),))).has_limits
    assert policy_of(snapshot(guardrails=Guardrails(response={"S1": "FLAG"}))).screen is not None


def test_route_is_parsed_once_and_unknown_ones_are_named() -> None:
    elements: list[JsonObject] = [
        {"id": "start", "type": "start", "outputs": {"next": {"elementId": "end"}}},
        {"id": "end", "type": "end", "outputs": {}},
    ]
    route = ActiveRoute(id="r", name="smart", version_id="v", elements=tuple(elements))
    policy = policy_of(replace(snapshot(), routes={"smart": route}))
    assert policy.route("smart") is policy.route("smart")
    with pytest.raises(NotFoundError, match="'other'"):
        policy.route("other")


def test_policy_is_made_anew_only_for_another_snapshot() -> None:
    policies = Policies(PROVIDERS)
    first = snapshot()
    assert policies.of(first) is policies.of(first)
    assert policies.of(snapshot()) is not policies.of(first)


def test_policies_have_a_bound() -> None:
    policies = Policies(PROVIDERS, limit=2)
    made = [snapshot(gateway_id=name) for name in "abc"]
    kept = [policies.of(each) for each in made]
    assert policies.of(made[2]) is kept[2]
    assert policies.of(made[0]) is not kept[0]
    assert len(policies._made) <= 2


def test_no_secret_is_in_a_repr() -> None:
    made = snapshot(credentials=[stored(json.dumps("sk-secret"))])
    assert "sk-secret" not in repr(made)
