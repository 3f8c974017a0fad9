"""Gateways, as the official `cloudflare` client manages them."""

from __future__ import annotations

from typing import Any

import pytest
from cloudflare import BadRequestError, Cloudflare, ConflictError, NotFoundError
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.api.cloudflare.conftest import REQUIRED
from tests.server import ServerProcess

PUBLIC_KEY = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)

EVERYTHING: dict[str, Any] = {
    "cache_ttl": 300,
    "cache_invalidate_on_update": True,
    "collect_logs": False,
    "rate_limiting_interval": 60,
    "rate_limiting_limit": 100,
    "rate_limiting_technique": "sliding",
    "authentication": False,
    "byok_only": True,
    "dlp": {
        "enabled": True,
        "policies": [
            {
                "id": "p1",
                "action": "BLOCK",
                "check": ["REQUEST"],
                "enabled": True,
                "profiles": ["credentials"],
            }
        ],
    },
    "guardrails": {"prompt": {"S1": "BLOCK", "P1": "FLAG"}, "response": {"S13": "FLAG"}},
    "log_classification": True,
    "log_management": 10_000,
    "log_management_strategy": "STOP_INSERTING",
    "logpush": True,
    "logpush_public_key": PUBLIC_KEY,
    "otel": [{"url": "https://otel.example/v1", "headers": {}, "content_type": "protobuf"}],
    "retry_backoff": "linear",
    "retry_delay": 250,
    "retry_max_attempts": 3,
    "spend_limits": {
        "enabled": True,
        "rules": [
            {
                "id": "daily",
                "limit": 10.5,
                "limitType": "cost",
                "window": 86_400,
                "technique": "fixed",
                "enabled": True,
                "model": {"mode": "filter", "values": ["gpt-4.1"]},
                "metadata": {"team": {"mode": "partition"}},
            }
        ],
    },
    "store_id": "store-1",
    "workers_ai_billing_mode": "unified",
    "zdr": True,
}


def sent(values: dict[str, Any]) -> dict[str, Any]:
    """Spell fields as the SDK's arguments are spelled, where that differs from the wire."""
    guardrails = {
        side: {name.lower(): action for name, action in actions.items()}
        for side, actions in values["guardrails"].items()
    }
    (rule,) = values["spend_limits"]["rules"]
    rule = {**rule, "limit_type": rule["limitType"]}
    del rule["limitType"]
    return {
        **values,
        "guardrails": guardrails,
        "spend_limits": {**values["spend_limits"], "rules": [rule]},
    }


def is_part_of(part: Any, whole: Any) -> bool:
    """Whether `whole` says all that `part` says."""
    if isinstance(part, dict):
        return all(name in whole and is_part_of(part[name], whole[name]) for name in part)
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(is_part_of, part, whole))
    return bool(part == whole)


def test_every_field_of_the_sdk_comes_back(cloudflare: Cloudflare, account: str) -> None:
    made = cloudflare.ai_gateway.create(account_id=account, id="all", **sent(EVERYTHING))
    got = cloudflare.ai_gateway.get("all", account_id=account)

    assert made.to_dict() == got.to_dict()
    body = got.to_dict(mode="json")
    assert is_part_of(EVERYTHING, body), body
    assert got.id == "all"
    assert got.is_default is False
    assert got.created_at == got.modified_at


def test_gateway_with_the_required_fields_alone_is_guarded_and_not_limited(
    cloudflare: Cloudflare, account: str
) -> None:
    made = cloudflare.ai_gateway.create(
        account_id=account,
        id="bare",
        **{**REQUIRED, "cache_ttl": None, "rate_limiting_interval": None},
    )

    assert made.authentication is True
    assert made.cache_ttl is None
    assert made.dlp is None
    assert made.guardrails is None


def test_update_changes_what_it_names_and_keeps_the_rest(
    cloudflare: Cloudflare, account: str
) -> None:
    made = cloudflare.ai_gateway.create(account_id=account, id="gw", **sent(EVERYTHING))

    changed = cloudflare.ai_gateway.update(
        "gw", account_id=account, **{**REQUIRED, "cache_ttl": 5}, guardrails=None
    )

    assert (changed.cache_ttl, changed.collect_logs, changed.guardrails) == (5, True, None)
    assert changed.spend_limits is not None
    assert changed.created_at == made.created_at
    assert changed.modified_at > made.modified_at
    assert cloudflare.ai_gateway.get("gw", account_id=account).to_dict() == changed.to_dict()


def test_what_was_read_can_be_written_back(cloudflare: Cloudflare, account: str) -> None:
    cloudflare.ai_gateway.create(account_id=account, id="gw", **sent(EVERYTHING))
    path = f"/accounts/{account}/ai-gateway/gateways/gw"
    before: Any = cloudflare.get(path, cast_to=object)

    after: Any = cloudflare.put(path, body=before["result"], cast_to=object)

    assert {**before["result"], "modified_at": ""} == {**after["result"], "modified_at": ""}


def test_pages_end(cloudflare: Cloudflare, account: str) -> None:
    for number in range(5):
        cloudflare.ai_gateway.create(account_id=account, id=f"gw-{number}", **REQUIRED)

    found = [item.id for item in cloudflare.ai_gateway.list(account_id=account, per_page=2)]
    searched = [item.id for item in cloudflare.ai_gateway.list(account_id=account, search="W-3")]
    second = cloudflare.ai_gateway.list(account_id=account, per_page=2, page=2)

    assert found == [f"gw-{number}" for number in range(4, -1, -1)]
    assert searched == ["gw-3"]
    assert second.result_info is not None
    assert second.result_info.to_dict() == {
        "page": 2,
        "per_page": 2,
        "count": 2,
        "total_count": 5,
    }


def test_deleted_gateway_is_gone_with_its_credentials(cloudflare: Cloudflare, account: str) -> None:
    cloudflare.ai_gateway.create(account_id=account, id="gw", **REQUIRED)
    cloudflare.ai_gateway.provider_configs.create(
        "gw",
        account_id=account,
        alias="a",
        default_config=True,
        provider_slug="openai",
        secret="sk-secret-of-openai",
    )

    gone = cloudflare.ai_gateway.delete("gw", account_id=account)

    assert gone.id == "gw"
    with pytest.raises(NotFoundError):
        cloudflare.ai_gateway.get("gw", account_id=account)
    cloudflare.ai_gateway.create(account_id=account, id="gw", **REQUIRED)
    assert not list(cloudflare.ai_gateway.provider_configs.list("gw", account_id=account))


def test_default_gateway_is_made_when_it_is_first_asked_for(
    cloudflare: Cloudflare, account: str
) -> None:
    assert not list(cloudflare.ai_gateway.list(account_id=account))

    made = cloudflare.ai_gateway.get("default", account_id=account)

    assert (made.is_default, made.authentication, made.collect_logs) == (True, True, True)
    assert (made.cache_ttl, made.rate_limiting_limit) == (0, 0)
    assert [item.id for item in cloudflare.ai_gateway.list(account_id=account)] == ["default"]


@pytest.mark.parametrize(
    ("fields", "message", "pointer"),
    [
        ({"cache_ttl": -1}, "greater than or equal to 0, got -1", "/cache_ttl"),
        ({"cache_ttl": "1"}, "valid integer, got '1'", "/cache_ttl"),
        ({"retry_max_attempts": 6}, "less than or equal to 5, got 6", "/retry_max_attempts"),
        ({"rate_limiting_technique": "slide"}, "'fixed' or 'sliding'", "/rate_limiting_technique"),
        ({"guardrails": {"prompt": {"S14": "FLAG"}}}, "got 'S14'", "/guardrails/prompt/S14"),
        ({"dlp": {"enabled": True}}, "expected 'policies'", "/dlp"),
        ({"otel": [{"url": "ftp://a", "headers": {}}]}, "http or https", "/otel/0/url"),
        ({"rate_limiting_limit": 5}, "needs a 'rate_limiting_interval'", None),
    ],
)
def test_wrong_field_is_named_with_its_value(
    cloudflare: Cloudflare, account: str, fields: dict[str, Any], message: str, pointer: str | None
) -> None:
    with pytest.raises(BadRequestError) as caught:
        cloudflare.ai_gateway.create(account_id=account, id="gw", **{**REQUIRED, **fields})

    (error,) = caught.value.errors
    assert error.code == 7001
    assert message in str(error.message)
    assert (error.source.pointer if error.source else None) == pointer


def test_unknown_field_is_refused_with_the_nearest_one(
    cloudflare: Cloudflare, account: str
) -> None:
    with pytest.raises(BadRequestError, match="Did you mean 'cache_ttl'"):
        cloudflare.ai_gateway.create(
            account_id=account, id="gw", **REQUIRED, extra_body={"cache_tll": 5}
        )


@pytest.mark.parametrize("missing", sorted(REQUIRED))
def test_missing_field_is_named(cloudflare: Cloudflare, account: str, missing: str) -> None:
    body = {"id": "gw", **{key: value for key, value in REQUIRED.items() if key != missing}}

    with pytest.raises(BadRequestError, match=f"Missing required field '{missing}'"):
        cloudflare.post(f"/accounts/{account}/ai-gateway/gateways", body=body, cast_to=object)


@pytest.mark.parametrize("gateway_id", ["", "a b", "ä", "a/b", "x" * 65])
def test_gateway_id_that_fits_no_path_is_refused(cloudflare: Cloudflare, gateway_id: str) -> None:
    with pytest.raises(BadRequestError, match="Invalid 'id'"):
        cloudflare.ai_gateway.create(account_id="ids", id=gateway_id, **REQUIRED)


def test_same_id_twice_is_a_conflict(cloudflare: Cloudflare, account: str) -> None:
    cloudflare.ai_gateway.create(account_id=account, id="gw", **REQUIRED)

    with pytest.raises(ConflictError, match="'gw' exists already"):
        cloudflare.ai_gateway.create(account_id=account, id="gw", **REQUIRED)


def test_unknown_gateway_is_not_found(cloudflare: Cloudflare, account: str) -> None:
    with pytest.raises(NotFoundError, match="No gateway found with id 'none'") as caught:
        cloudflare.ai_gateway.update("none", account_id=account, **REQUIRED)

    assert [error.code for error in caught.value.errors] == [7002]


@pytest.mark.parametrize("provider", ["openai", "workers-ai", "custom-mine"])
def test_url_is_this_servers_own(
    control_server: ServerProcess, cloudflare: Cloudflare, account: str, provider: str
) -> None:
    url = cloudflare.ai_gateway.urls.get(provider, account_id=account, gateway_id="default")

    assert url == f"{control_server.url}/gateway/v1/{account}/default/{provider}"


def test_url_of_something_odd_is_refused(cloudflare: Cloudflare, account: str) -> None:
    with pytest.raises(BadRequestError, match="a/b"):
        cloudflare.ai_gateway.urls.get("a/b", account_id=account, gateway_id="default")


def test_fields_of_ours_are_kept(cloudflare: Cloudflare, account: str) -> None:
    ours: dict[str, Any] = {
        "limits": [{"limit": 5, "interval": 60, "technique": "sliding", "per": "metadata.team"}],
        "concurrency": {
            "limit": 4,
            "per_key_limit": 2,
            "queue": 10,
            "wait_s": 1.5,
            "weights": {"key_1": 2.0},
        },
        "semantic_cache": {"enabled": True, "threshold": 0.9},
        "hedge_after_ms": 500,
        "alerts": [
            {
                "id": "spend",
                "figure": "cost",
                "threshold": 5.0,
                "window": 3600,
                "url": "https://hooks.example/T0/secret-part",
            }
        ],
        "collect_log_payloads": False,
        "dlp": {
            "enabled": True,
            "action": "REDACT",
            "profiles": ["credentials", "mine"],
            "custom_profiles": [
                {"id": "mine", "patterns": {"case": "C-[0-9]+"}, "words": {"names": ["Falcon"]}}
            ],
        },
    }
    cloudflare.ai_gateway.create(account_id=account, id="gw", **REQUIRED, extra_body=ours)

    path = f"/accounts/{account}/ai-gateway/gateways/gw"
    body: Any = cloudflare.get(path, cast_to=object)  # the SDK's types do not know REDACT
    alert = body["result"]["alerts"][0]
    assert alert["url"] == "https://hooks.example/***"
    ours["alerts"][0]["url"] = alert["url"]
    assert is_part_of(ours, body["result"]), body


def test_regular_expression_that_is_none_is_refused(cloudflare: Cloudflare, account: str) -> None:
    dlp = {
        "enabled": True,
        "policies": [],
        "custom_profiles": [{"id": "mine", "patterns": {"case": "C-["}}],
    }

    with pytest.raises(BadRequestError, match="not a regular expression"):
        cloudflare.ai_gateway.create(
            account_id=account, id="gw", **REQUIRED, extra_body={"dlp": dlp}
        )
