"""Provider configs, custom providers and dynamic routes, through the official client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloudflare import BadRequestError, Cloudflare, ConflictError, NotFoundError

ELEMENTS: list[dict[str, Any]] = [
    {"id": "start", "type": "start", "outputs": {"next": {"elementId": "plan"}}},
    {
        "id": "plan",
        "type": "conditional",
        "properties": {"conditions": {"metadata.plan": {"$eq": "free"}}},
        "outputs": {"true": {"elementId": "small"}, "false": {"elementId": "large"}},
    },
    {
        "id": "small",
        "type": "model",
        "properties": {
            "provider": "workers-ai",
            "model": "@cf/meta/llama-3.1-8b-instruct",
            "timeout": 1000,
            "retries": 1,
        },
        "outputs": {"success": {"elementId": "end"}, "fallback": {"elementId": "large"}},
    },
    {
        "id": "large",
        "type": "model",
        "properties": {
            "provider": "openai",
            "model": "gpt-4.1",
            "timeout": 1000,
            "retries": 0,
        },
        "outputs": {"success": {"elementId": "end"}, "fallback": {"elementId": "end"}},
    },
    {"id": "end", "type": "end", "outputs": {}},
]
SECRET = "sk-proj-abcdefghijklmnop-1234"


def keep(cloudflare: Cloudflare, account: str, **fields: Any) -> Any:
    given = {
        "alias": "main",
        "default_config": True,
        "provider_slug": "openai",
        "secret": SECRET,
        **fields,
    }
    return cloudflare.ai_gateway.provider_configs.create("default", account_id=account, **given)


def listed(cloudflare: Cloudflare, account: str) -> dict[str, Any]:
    found = cloudflare.ai_gateway.provider_configs.list("default", account_id=account, per_page=1)
    return {item.id: item for item in found}


def test_credential_is_kept_without_being_shown(cloudflare: Cloudflare, account: str) -> None:
    made = keep(cloudflare, account, rate_limit=10, rate_limit_period=60)

    assert (made.alias, made.provider_slug, made.default_config) == ("main", "openai", True)
    assert made.gateway_id == "default"
    assert (made.rate_limit, made.rate_limit_period) == (10, 60)
    assert made.secret_preview == "sk-***1234"
    assert SECRET not in made.to_json()
    assert listed(cloudflare, account)[made.id].to_dict() == made.to_dict()


def test_alias_of_a_provider_is_taken_once(cloudflare: Cloudflare, account: str) -> None:
    keep(cloudflare, account)
    keep(cloudflare, account, provider_slug="groq")

    with pytest.raises(ConflictError):
        keep(cloudflare, account, secret="sk-another-0000000000")

    assert len(listed(cloudflare, account)) == 2


def test_provider_has_one_default(cloudflare: Cloudflare, account: str) -> None:
    first = keep(cloudflare, account, alias="first")
    other = keep(cloudflare, account, alias="first", provider_slug="groq")
    second = keep(cloudflare, account, alias="second")

    defaults = {key for key, item in listed(cloudflare, account).items() if item.default_config}

    assert defaults == {second.id, other.id}
    assert first.id not in defaults


def test_put_rotates_a_secret(cloudflare: Cloudflare, account: str) -> None:
    made = keep(cloudflare, account)
    path = f"/accounts/{account}/ai-gateway/gateways/default/provider_configs/{made.id}"

    answer: Any = cloudflare.put(path, body={"secret": "sk-new-secret-9999"}, cast_to=object)

    changed = answer["result"]
    assert changed["secret_preview"] == "sk-***9999"
    assert changed["secret_id"] != made.secret_id
    assert changed["alias"] == "main"
    with pytest.raises(BadRequestError, match="'alias' cannot change"):
        cloudflare.put(path, body={"alias": "other"}, cast_to=object)


def test_deleted_credential_is_gone(cloudflare: Cloudflare, account: str) -> None:
    made = keep(cloudflare, account)
    path = f"/accounts/{account}/ai-gateway/gateways/default/provider_configs/{made.id}"

    cloudflare.delete(path, cast_to=object)

    assert not listed(cloudflare, account)
    with pytest.raises(NotFoundError):
        cloudflare.get(path, cast_to=object)


def test_secret_id_of_another_config_stands_for_its_secret(
    cloudflare: Cloudflare, account: str
) -> None:
    made = keep(cloudflare, account)

    copied = cloudflare.ai_gateway.provider_configs.create(
        "default",
        account_id=account,
        alias="copy",
        default_config=False,
        provider_slug="openai",
        secret_id=made.secret_id,
    )

    assert copied.secret_preview == made.secret_preview
    with pytest.raises(BadRequestError, match="secret_id"):
        cloudflare.ai_gateway.provider_configs.create(
            "default",
            account_id=account,
            alias="none",
            default_config=False,
            provider_slug="openai",
            secret_id="nobody-knows",
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"provider_slug": "opneai"}, "Did you mean 'openai'"),
        ({"alias": "a b"}, "Invalid 'alias'"),
        ({"rate_limit": 5.0}, "needs a 'rate_limit_period'"),
        ({"secret": ""}, "Invalid 'secret'"),
    ],
)
def test_wrong_credential_is_refused_without_its_secret(
    cloudflare: Cloudflare, account: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadRequestError, match=message) as caught:
        keep(cloudflare, account, **fields)

    assert SECRET not in str(caught.value)


def test_custom_provider_comes_back_with_masked_headers(
    cloudflare: Cloudflare, account: str
) -> None:
    made = cloudflare.ai_gateway.custom_providers.create(
        account_id=account,
        name="My GPUs",
        slug="mine",
        base_url="https://llm.example.com/v1",
        description="Ours",
        beta=True,
        headers=json.dumps({"x-api-key": "very-secret-header-value"}),
        link="https://example.com",
        position=3,
    )

    got = cloudflare.ai_gateway.custom_providers.get(made.id, account_id=account)

    assert got.to_dict() == made.to_dict()
    assert (got.slug, got.enable, got.beta, got.position) == ("mine", True, True, 3)
    assert json.loads(str(got.headers)) == {"x-api-key": "ver***alue"}


def test_custom_providers_are_listed_by_filter_and_deleted(
    cloudflare: Cloudflare, account: str
) -> None:
    api = cloudflare.ai_gateway.custom_providers
    for slug, enable in (("one", True), ("two", False)):
        api.create(
            account_id=account,
            name=f"Name {slug}",
            slug=slug,
            base_url="https://x.example",
            enable=enable,
        )

    assert [item.slug for item in api.list(account_id=account, per_page=1)] == ["two", "one"]
    assert [item.slug for item in api.list(account_id=account, enable=True)] == ["one"]
    assert [item.slug for item in api.list(account_id=account, search="name TWO")] == ["two"]
    assert api.delete("one", account_id=account).slug == "one"
    assert [item.slug for item in api.list(account_id=account)] == ["two"]
    with pytest.raises(NotFoundError):
        api.delete("one", account_id=account)


def test_changed_custom_provider_keeps_the_headers_that_were_shown_masked(
    cloudflare: Cloudflare, account: str
) -> None:
    made = cloudflare.ai_gateway.custom_providers.create(
        account_id=account,
        name="M",
        slug="mine",
        base_url="https://llm.example.com",
        headers=json.dumps({"x-api-key": "very-secret-header-value"}),
    )
    path = f"/accounts/{account}/ai-gateway/custom-providers/mine"
    body = {**made.to_dict(mode="json"), "name": "N"}

    changed: Any = cloudflare.put(path, body=body, cast_to=object)

    assert changed["result"]["name"] == "N"
    assert changed["result"]["headers"] == made.headers
    with pytest.raises(BadRequestError, match="'headers' is masked"):
        cloudflare.put(path, body={"headers": '{"x-api-key": "oth***alue"}'}, cast_to=object)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_url": "http://127.0.0.1:11434"}, "private addresses are not allowed"),
        ({"base_url": "http://user:pw@example.com"}, "no user name or password"),
        ({"slug": "Not A Slug"}, "Invalid 'slug'"),
        ({"headers": "x: y"}, "JSON object of headers"),
        ({"headers": '{"x": "a\\nb"}'}, "that HTTP cannot carry"),
    ],
)
def test_wrong_custom_provider_is_refused(
    cloudflare: Cloudflare, account: str, fields: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"name": "M", "slug": "mine", "base_url": "https://x.example"}

    with pytest.raises(BadRequestError, match=message):
        cloudflare.ai_gateway.custom_providers.create(account_id=account, **{**given, **fields})


def make_route(cloudflare: Cloudflare, account: str, name: str = "by-plan") -> Any:
    return cloudflare.ai_gateway.dynamic_routing.create(
        "default",
        account_id=account,
        name=name,
        elements=ELEMENTS,  # type: ignore[arg-type]
    )


def test_route_is_deployed_when_it_is_made(cloudflare: Cloudflare, account: str) -> None:
    made = make_route(cloudflare, account)
    got = cloudflare.ai_gateway.dynamic_routing.get(
        made.id, account_id=account, gateway_id="default"
    )

    assert got.to_dict() == made.to_dict()
    assert got.to_dict(mode="json")["elements"] == ELEMENTS
    assert (got.name, got.gateway_id) == ("by-plan", "default")
    assert got.version.active == "true"
    assert json.loads(got.version.data) == ELEMENTS
    assert got.deployment.version_id == got.version.version_id


def test_versions_answer_once_they_are_deployed(cloudflare: Cloudflare, account: str) -> None:
    api = cloudflare.ai_gateway.dynamic_routing
    place: dict[str, Any] = {"account_id": account, "gateway_id": "default"}
    made = make_route(cloudflare, account)
    others = [*ELEMENTS[:1], {**ELEMENTS[1], "type": "conditional"}, *ELEMENTS[2:]]
    others[2] = {**others[2], "properties": {**others[2]["properties"], "retries": 2}}

    added = api.create_version(made.id, **place, elements=others)  # type: ignore[arg-type]
    version_id = str(added.to_dict()["version_id"])
    versions = api.list_versions(made.id, **place).data.versions
    before = api.get(made.id, **place)
    api.create_deployment(made.id, **place, version_id=version_id)
    after = api.get(made.id, **place)
    version = api.get_version(version_id, **place, id=made.id)
    deployments = api.list_deployments(made.id, **place).data.deployments

    assert [item.version_id for item in versions] == [version_id, made.version.version_id]
    assert [item.active for item in versions] == ["false", "true"]
    assert before.version.version_id == made.version.version_id
    assert after.version.version_id == version_id
    assert after.to_dict(mode="json")["elements"] == others
    assert (version.active, version.version_id) == ("true", version_id)
    assert [item.version_id for item in deployments] == [version_id, made.version.version_id]
    assert deployments[0].deployment_id == after.deployment.deployment_id


def test_routes_are_listed_renamed_and_deleted(cloudflare: Cloudflare, account: str) -> None:
    api = cloudflare.ai_gateway.dynamic_routing
    place: dict[str, Any] = {"account_id": account, "gateway_id": "default"}
    one, two = make_route(cloudflare, account, "one"), make_route(cloudflare, account, "two")

    renamed = api.update(one.id, **place, name="uno")
    page: dict[str, Any] = {"account_id": account, "per_page": 1}
    names = [
        [route.name for route in api.list("default", **page, page=number).data.routes]
        for number in (1, 2, 3)
    ]
    gone = api.delete(two.id, **place)

    assert renamed.success
    assert (renamed.route.name, renamed.route.account_tag) == ("uno", account)
    assert names == [["two"], ["uno"], []]
    assert gone.id == two.id
    with pytest.raises(NotFoundError):
        api.get(two.id, **place)


def test_route_name_is_taken_once(cloudflare: Cloudflare, account: str) -> None:
    make_route(cloudflare, account)
    other = make_route(cloudflare, account, "other")

    with pytest.raises(ConflictError, match="'by-plan' exists already"):
        make_route(cloudflare, account)
    with pytest.raises(ConflictError, match="'by-plan' exists already"):
        cloudflare.ai_gateway.dynamic_routing.update(
            other.id, account_id=account, gateway_id="default", name="by-plan"
        )


def test_graph_that_leads_nowhere_is_refused(cloudflare: Cloudflare, account: str) -> None:
    with pytest.raises(BadRequestError, match="nowhere") as caught:
        cloudflare.ai_gateway.dynamic_routing.create(
            "default",
            account_id=account,
            name="broken",
            elements=[
                {"id": "start", "type": "start", "outputs": {"next": {"element_id": "nowhere"}}}
            ],
        )

    assert [error.code for error in caught.value.errors] == [7001]


@pytest.mark.parametrize(
    ("call", "model", "reason"),
    [
        ({"metadata": {"plan": "free"}}, "@cf/meta/llama-3.1-8b-instruct", "answered"),
        ({"metadata": {"plan": "paid"}}, "gpt-4.1", "answered"),
        ({"metadata": {"plan": "free"}, "failing": ["small"]}, "gpt-4.1", "answered"),
        ({"failing": ["small", "large"]}, None, "no_answer"),
    ],
)
def test_simulation_says_which_way_a_call_takes(
    cloudflare: Cloudflare, account: str, call: dict[str, Any], model: str | None, reason: str
) -> None:
    made = make_route(cloudflare, account, f"r{abs(hash(str(call)))}")
    path = f"/accounts/{account}/ai-gateway/gateways/default/routes/{made.id}/simulate"

    answer: Any = cloudflare.post(path, body=call, cast_to=object)

    assert answer["result"]["model"] == model
    assert answer["result"]["end"]["reason"] == reason
    assert [visit["element_id"] for visit in answer["result"]["visits"]][:2] == ["start", "plan"]
