from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openworks.core.errors import InvalidRequestError, PermissionDeniedError
from openworks.core.ids import AccountId, KeyId
from openworks.core.json import JsonObject
from openworks.ports.calls import Principal
from openworks.ports.documents import Document
from openworks.ports.gateways import (
    Alert,
    Concurrency,
    DlpPolicy,
    DlpProfile,
    Gateway,
    GatewayId,
    OtelExport,
    RateLimit,
    RetryPolicy,
    Selector,
    SpendRule,
)
from openworks.services.audit import Actor, Audit
from openworks.services.credentials import Credentials
from openworks.services.custom_providers import CustomProviders
from openworks.services.gateway_documents import to_gateway
from openworks.services.gateways import Gateways, account_of
from openworks.services.sealing import Sealer, secrets_of
from openworks.services.snapshots import GatewaySnapshots
from openworks.services.vault import KeySource, Vault
from openworks.wire.cloudflare.gateway import defaults
from openworks.wire.cloudflare.nouns import NewProviderConfig
from tests.document_store import MemoryDocumentStore
from tests.fakes import CountingIds, FakeClock
from tests.unit.services.test_vault import NEW, OLD, Keys

ACME = AccountId("acme")
ALICE = Actor(account_id=ACME, name="key-1")
BODY: JsonObject = {
    "cache_ttl": 60,
    "cache_invalidate_on_update": False,
    "collect_logs": True,
    "rate_limiting_interval": 0,
    "rate_limiting_limit": 0,
}
SECRET_BODY: JsonObject = {
    **BODY,
    "otel": [
        {
            "url": "https://otel.example",
            "headers": {"x-key": "header-secret-123"},
            "authorization": "Bearer authorization-123",
        }
    ],
    "stripe": {"authorization": "stripe-secret-1234", "usage_events": []},
    "alerts": [
        {
            "id": "a",
            "figure": "cost",
            "threshold": 1.0,
            "window": 60,
            "url": "https://hooks.example/secret-path",
        }
    ],
}


class World:
    """The control plane over a store in memory."""

    def __init__(self, keys: KeySource) -> None:
        self.store = MemoryDocumentStore()
        clock = FakeClock()
        vault = Vault(keys)
        self.sealer, self.audit = Sealer(vault), Audit(self.store, clock)
        memory = GatewaySnapshots(self.store, self.sealer, self.audit, clock=clock)
        self.gateways = Gateways(self.store, self.sealer, self.audit, memory, clock=clock)
        self.credentials = Credentials(
            self.store,
            vault,
            self.audit,
            self.gateways,
            memory,
            clock=clock,
            new_id=CountingIds(),
        )
        self.providers = CustomProviders(self.store, self.sealer, self.audit, memory, clock=clock)

    def gateway(self) -> Document:
        (found,) = (item for item in self.store.documents if item.kind == "gateway")
        return found


@pytest.fixture
def world() -> World:
    return World(Keys(OLD))


def converted(**fields: Any) -> Gateway:
    document = Document(
        kind="gateway",
        account_id=ACME,
        parent="",
        id="gw",
        body={**defaults(), **fields},
        created_at_s=1.0,
        modified_at_s=2.0,
    )
    return to_gateway(document)


def test_gateway_of_which_nothing_was_said_does_nothing_but_log() -> None:
    assert converted() == Gateway(
        account_id=ACME, id=GatewayId("gw"), created_at_s=1.0, modified_at_s=2.0
    )


def test_null_means_off() -> None:
    fields = ("cache_ttl", "rate_limiting_interval", "rate_limiting_limit")

    assert converted(**dict.fromkeys(fields)) == converted()


def test_every_policy_reaches_the_data_path() -> None:
    gateway = converted(
        cache_ttl=60,
        cache_epoch=3,
        authentication=False,
        byok_only=True,
        rate_limiting_limit=5,
        rate_limiting_interval=10,
        rate_limiting_technique="sliding",
        limits=[{"limit": 2, "interval": 3, "per": "key"}],
        concurrency={"limit": 4, "weights": {"k": 2.0}},
        semantic_cache={"threshold": 0.9},
        hedge_after_ms=500,
        retry_max_attempts=3,
        retry_delay=100,
        retry_backoff="linear",
        collect_logs=False,
        collect_log_payloads=False,
        log_management=1000,
        log_management_strategy="STOP_INSERTING",
        guardrails={"prompt": {"S1": "BLOCK"}, "response": {"P1": "FLAG"}},
        otel=[{"url": "https://o.example", "headers": {"a": "b"}, "authorization": "c"}],
        alerts=[
            {
                "id": "a",
                "figure": "p95_ms",
                "threshold": 5.0,
                "window": 60,
                "url": "https://h.example",
            }
        ],
    )

    assert (gateway.cache_ttl_s, gateway.cache_epoch) == (60, 3)
    assert (gateway.authentication, gateway.byok_only) == (False, True)
    assert gateway.rate_limits == (
        RateLimit(limit=5, interval_s=10, technique="sliding"),
        RateLimit(limit=2, interval_s=3, per="key"),
    )
    assert gateway.concurrency == Concurrency(limit=4, weights={"k": 2.0})
    assert (gateway.semantic_threshold, gateway.hedge_after_ms) == (0.9, 500)
    assert gateway.retry == RetryPolicy(max_attempts=3, delay_ms=100, backoff="linear")
    assert not gateway.logs.collect
    assert not gateway.logs.payloads
    assert (gateway.logs.limit, gateway.logs.strategy) == (1000, "STOP_INSERTING")
    assert gateway.guardrails.prompt == {"S1": "BLOCK"}
    assert gateway.guardrails.response == {"P1": "FLAG"}
    assert gateway.otel == (
        OtelExport(url="https://o.example", headers={"a": "b"}, authorization="c"),
    )
    assert gateway.alerts == (
        Alert(id="a", figure="p95_ms", threshold=5.0, window_s=60, url="https://h.example"),
    )


def test_older_shape_of_dlp_is_one_policy_on_both_sides() -> None:
    dlp = {"enabled": True, "action": "BLOCK", "profiles": ["credentials"]}

    assert converted(dlp=dlp).dlp == (
        DlpPolicy(
            id="default",
            action="BLOCK",
            checks=frozenset({"REQUEST", "RESPONSE"}),
            profiles=("credentials",),
        ),
    )
    assert converted(dlp={**dlp, "enabled": False}).dlp == ()


def test_policies_of_dlp_are_those_that_are_on() -> None:
    policy = {"action": "REDACT", "check": ["RESPONSE"], "profiles": ["mine"]}
    dlp = {
        "enabled": True,
        "policies": [
            {"id": "on", "enabled": True, **policy},
            {"id": "off", "enabled": False, **policy},
        ],
        "custom_profiles": [{"id": "mine", "patterns": {"case": "C-[0-9]"}, "words": {"n": ["F"]}}],
    }

    gateway = converted(dlp=dlp)

    assert gateway.dlp == (
        DlpPolicy(id="on", action="REDACT", checks=frozenset({"RESPONSE"}), profiles=("mine",)),
    )
    assert gateway.dlp_profiles == (
        DlpProfile(id="mine", patterns={"case": "C-[0-9]"}, words={"n": ("F",)}),
    )


def test_spend_rules_are_those_that_are_on() -> None:
    rules = [
        {
            "limit": 5,
            "limitType": "tokens",
            "window": 60,
            "technique": "sliding",
            "provider": {"mode": "filter", "values": ["openai"]},
            "key": {"mode": "partition"},
            "metadata": {"team": {"mode": "partition"}},
        },
        {"limit": 5, "limitType": "cost", "window": 60, "enabled": False},
    ]

    assert converted(spend_limits={"rules": rules}).spend_rules == (
        SpendRule(
            id="rule-1",
            limit=5.0,
            unit="tokens",
            window_s=60,
            technique="sliding",
            by={
                "provider": Selector(mode="filter", values=("openai",)),
                "key": Selector(mode="partition"),
                "metadata.team": Selector(mode="partition"),
            },
        ),
    )
    assert converted(spend_limits={"enabled": False, "rules": rules}).spend_rules == ()


async def test_update_counts_the_cache_epoch_up_when_asked_to(world: World) -> None:
    await world.gateways.create(ALICE, {"id": "gw", **BODY})
    await world.gateways.update(ALICE, "gw", BODY)
    assert world.gateway().body["cache_epoch"] == 0

    await world.gateways.update(ALICE, "gw", {**BODY, "cache_invalidate_on_update": True})

    assert world.gateway().body["cache_epoch"] == 1


async def test_secrets_of_a_gateway_are_sealed_in_the_store_and_masked_in_answers(
    world: World,
) -> None:
    shown = await world.gateways.create(ALICE, {"id": "gw", **SECRET_BODY})

    kept = world.gateway()
    assert len(secrets_of(kept)) == 4
    for secret in ("header-secret", "authorization-123", "stripe-secret", "secret-path"):
        assert secret not in str(kept)
        assert secret not in str(shown)
    assert secrets_of(world.sealer.open(kept)) == {
        "otel.https://otel.example.authorization": "Bearer authorization-123",
        "otel.https://otel.example.headers.x-key": "header-secret-123",
        "alerts.a.url": "https://hooks.example/secret-path",
        "stripe.authorization": "stripe-secret-1234",
    }


async def test_masked_secrets_that_are_written_back_stay_as_they_were(world: World) -> None:
    shown = await world.gateways.create(ALICE, {"id": "gw", **SECRET_BODY})
    kept = world.gateway()

    await world.gateways.update(
        ALICE, "gw", {name: value for name, value in shown.body.items() if name != "cache_epoch"}
    )

    assert secrets_of(world.gateway()) == secrets_of(kept)
    assert world.store.audit[-1].changed == ()


async def test_one_new_secret_among_masked_ones_is_taken(world: World) -> None:
    shown = await world.gateways.create(ALICE, {"id": "gw", **SECRET_BODY})
    stripe: JsonObject = {"authorization": "another-secret-99", "usage_events": []}

    await world.gateways.update(ALICE, "gw", {**BODY, "otel": shown.body["otel"], "stripe": stripe})

    opened = secrets_of(world.sealer.open(world.gateway()))
    assert opened["stripe.authorization"] == "another-secret-99"
    assert opened["otel.https://otel.example.authorization"] == "Bearer authorization-123"
    assert world.store.audit[-1].changed == ("stripe",)


async def test_mask_of_a_secret_that_is_not_kept_is_refused(world: World) -> None:
    shown = await world.gateways.create(ALICE, {"id": "gw", **SECRET_BODY})

    with pytest.raises(InvalidRequestError, match="is masked"):
        await world.gateways.create(ALICE, {"id": "other", **BODY, "stripe": shown.body["stripe"]})


async def test_rotation_seals_everything_with_the_new_key(world: World) -> None:
    keys = Keys(OLD)
    world = World(keys)
    await world.gateways.create(ALICE, {"id": "gw", **SECRET_BODY})
    await world.credentials.create(
        ALICE,
        "gw",
        NewProviderConfig(
            alias="a", provider_slug="openai", default_config=True, secret="sk-secret-of-a"
        ),
    )
    await world.providers.create(
        ALICE,
        {"name": "M", "slug": "m", "base_url": "https://x.example", "headers": '{"k":"v"}'},
    )
    before = {item.id: secrets_of(world.sealer.open(item)) for item in world.store.documents}

    count = await world.credentials.rotate(ALICE, NEW)

    assert count == 3
    keys.keys = [NEW]
    fresh = Sealer(Vault(Keys(NEW)))
    assert {item.id: secrets_of(fresh.open(item)) for item in world.store.documents} == before
    assert world.store.audit[-1].kind == "secret_key"
    assert await world.credentials.rotate(ALICE) == 0


async def test_secret_moved_to_another_document_does_not_open(world: World) -> None:
    await world.gateways.create(ALICE, {"id": "gw", **SECRET_BODY})

    moved = world.sealer.open(replace(world.gateway(), account_id=AccountId("thief")))

    assert set(secrets_of(moved).values()) == {"***"}


@pytest.mark.parametrize(
    ("key_id", "own", "name", "expected"),
    [
        ("key-1", "acme", "acme", "acme"),
        ("key-1", "acme", "default", "acme"),
        ("key-1", "a.b", "a.b", "a.b"),
        (None, "default", "anything-1", "anything-1"),
        (None, "default", "default", "default"),
    ],
)
def test_account_in_a_path_is_the_callers(
    key_id: str | None, own: str, name: str, expected: str
) -> None:
    principal = Principal(
        account_id=AccountId(own), key_id=None if key_id is None else KeyId(key_id)
    )

    assert account_of(principal, name) == expected


def test_account_of_somebody_else_is_refused() -> None:
    principal = Principal(account_id=ACME, key_id=KeyId("key-1"))

    with pytest.raises(PermissionDeniedError, match="'other'"):
        account_of(principal, "other")


@pytest.mark.parametrize("name", ["", "a/b", "ä", "a" * 65, "a\n", ".."])
def test_account_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        account_of(Principal(account_id=AccountId("default")), name)
