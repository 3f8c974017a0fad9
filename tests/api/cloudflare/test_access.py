"""Who may see and change what; and what is left behind of secrets."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest
from cloudflare import (
    AuthenticationError,
    Cloudflare,
    NotFoundError,
    PermissionDeniedError,
)

from tests.api.cloudflare.conftest import REQUIRED, CloudflareFor
from tests.conftest import StartServer
from tests.server import ServerProcess

SECRETS = {
    "credential": "sk-credential-3b9f1c77aa",
    "authorization": "Bearer otel-authorization-51d0",
    "header": "otel-header-value-9c1e4d",
    "stripe": "rk_live_stripe-authorization-77",
    "webhook": "https://hooks.example/services/webhook-part-f00d",
    "custom": "custom-provider-header-c0ffee",
}


def raw(
    server: ServerProcess, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, json.loads(response.read()), response.headers
    finally:
        connection.close()


def fill(client: Cloudflare, account: str) -> None:
    """Put a secret wherever one can be put."""
    client.ai_gateway.create(
        account_id=account,
        id="gw",
        **REQUIRED,
        otel=[
            {
                "url": "https://otel.example",
                "headers": {"x-key": SECRETS["header"]},
                "authorization": SECRETS["authorization"],
            }
        ],
        stripe={"authorization": SECRETS["stripe"], "usage_events": [{"payload": "{}"}]},
        extra_body={
            "alerts": [
                {
                    "id": "a",
                    "figure": "cost",
                    "threshold": 1.0,
                    "window": 60,
                    "url": SECRETS["webhook"],
                }
            ]
        },
    )
    client.ai_gateway.provider_configs.create(
        "gw",
        account_id=account,
        alias="main",
        default_config=True,
        provider_slug="openai",
        secret=SECRETS["credential"],
    )
    client.ai_gateway.custom_providers.create(
        account_id=account,
        name="Mine",
        slug="mine",
        base_url="https://x.example",
        headers=json.dumps({"x-api-key": SECRETS["custom"]}),
    )


def read_all(client: Cloudflare, account: str) -> str:
    """All that the API says of an account."""
    base = f"/accounts/{account}/ai-gateway"
    paths = ("/gateways", "/gateways/gw/provider_configs", "/custom-providers", "/audit")
    return json.dumps([client.get(f"{base}{path}", cast_to=object) for path in paths])


def test_secrets_are_in_no_file_no_log_and_no_answer(
    start_server: StartServer, cloudflare_for: CloudflareFor, tmp_path: Path
) -> None:
    server = start_server({"log.level": "debug"})
    client = cloudflare_for(server)
    fill(client, "acme")
    answers = read_all(client, "acme")

    server.stop()

    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"openworks.db", "server.log", "secret.key"} <= {file.name for file in files}
    for secret in SECRETS.values():
        assert secret not in answers
        for file in files:
            assert secret.encode() not in file.read_bytes(), (secret, file)
    (key_file,) = (file for file in files if file.name == "secret.key")
    assert key_file.stat().st_mode & 0o777 == 0o600


def test_restart_keeps_everything(
    start_server: StartServer, cloudflare_for: CloudflareFor, tmp_path: Path
) -> None:
    server = start_server({})
    fill(cloudflare_for(server), "acme")
    before = read_all(cloudflare_for(server), "acme")
    server.stop()

    again = ServerProcess({}, server.log.parent)
    try:
        assert read_all(cloudflare_for(again), "acme") == before
    finally:
        again.stop()


def test_server_with_a_wrong_secret_key_does_not_start(start_server: StartServer) -> None:
    with pytest.raises(RuntimeError) as caught:
        start_server({"gateway.secret_key": "c2hvcnQ="})

    assert "32 bytes" in str(caught.value)
    assert "c2hvcnQ=" not in str(caught.value)


def test_key_opens_its_own_account_alone(
    guarded_server: ServerProcess, cloudflare_for: CloudflareFor, account: str
) -> None:
    _, acme = guarded_server.make_key(account=account, scopes=("admin",))
    _, other = guarded_server.make_key(account="other", scopes=("admin",))
    cloudflare_for(guarded_server, token=acme).ai_gateway.create(
        account_id=account, id="gw", **REQUIRED
    )
    stranger = cloudflare_for(guarded_server, token=other).ai_gateway

    with pytest.raises(PermissionDeniedError) as caught:
        stranger.get("gw", account_id=account)
    assert [error.code for error in caught.value.errors] == [9109]
    with pytest.raises(NotFoundError):
        stranger.get("gw", account_id="other")
    with pytest.raises(NotFoundError):
        stranger.get("gw", account_id="default")
    assert not list(stranger.list(account_id="other"))


def test_default_is_another_name_for_a_keys_account(
    guarded_server: ServerProcess, cloudflare_for: CloudflareFor, account: str
) -> None:
    _, secret = guarded_server.make_key(account=account, scopes=("admin",))
    gateways = cloudflare_for(guarded_server, token=secret).ai_gateway
    gateways.create(account_id="default", id="gw", **REQUIRED)

    assert gateways.get("gw", account_id=account).id == "gw"


def test_access_token_opens_every_account(
    guarded_server: ServerProcess, cloudflare_for: CloudflareFor, account: str
) -> None:
    gateways = cloudflare_for(guarded_server, token="token-of-the-owner").ai_gateway
    gateways.create(account_id=account, id="gw", **REQUIRED)

    assert gateways.get("gw", account_id=account).id == "gw"
    with pytest.raises(NotFoundError):
        gateways.get("gw", account_id="other")


@pytest.mark.parametrize("token", ["", "sk-ow-nobody-has-this-one"])
def test_stranger_gets_an_authentication_error(
    guarded_server: ServerProcess, cloudflare_for: CloudflareFor, account: str, token: str
) -> None:
    client = cloudflare_for(guarded_server, token=token or "x")

    with pytest.raises(AuthenticationError) as caught:
        client.ai_gateway.get("default", account_id=account)

    assert [error.code for error in caught.value.errors] == [10000]


def test_key_for_inference_manages_nothing(
    guarded_server: ServerProcess, cloudflare_for: CloudflareFor, account: str
) -> None:
    _, secret = guarded_server.make_key(account=account, scopes=("inference",))

    with pytest.raises(PermissionDeniedError, match="lacks the scope 'admin'"):
        cloudflare_for(guarded_server, token=secret).ai_gateway.list(account_id=account)


def test_legacy_header_holds_the_key_too(guarded_server: ServerProcess, account: str) -> None:
    client = Cloudflare(
        base_url=f"{guarded_server.url}/client/v4",
        api_token=None,
        api_email="me@example.com",
        api_key="token-of-the-owner",
        max_retries=0,
    )
    with client:
        assert client.ai_gateway.get("default", account_id=account).id == "default"


def test_account_that_is_no_name_is_refused(control_server: ServerProcess) -> None:
    for name in ("a%20b", "a.b", "x" * 65):
        path = f"/client/v4/accounts/{name}/ai-gateway/gateways"
        status, body, _ = raw(control_server, "GET", path)

        assert status == 400, name
        assert body["errors"][0]["source"] == {"pointer": "/account_id"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/client/v4/accounts/a/nothing", 404, 7003),
        ("GET", "/client/v4/", 404, 7003),
        ("GET", "/client/v4/accounts/a/ai-gateway/gateways/a%2Fb", 404, 7003),
        ("GET", "/client/v4/accounts/a/ai-gateway/gateways/a%00", 400, 7001),
        ("GET", "/client/v4/accounts/a/ai-gateway/audit?before=x", 400, 7001),
        ("DELETE", "/client/v4/accounts/a/ai-gateway/gateways", 405, 10405),
        ("POST", "/client/v4/accounts/a/ai-gateway/gateways", 400, 7001),
        ("GET", "/client/v4/accounts/a/ai-gateway/gateways?page=0", 400, 7001),
        ("GET", "/client/v4/accounts/a/ai-gateway/gateways?per_page=x", 400, 7001),
    ],
)
def test_refusals_come_in_cloudflares_envelope(
    control_server: ServerProcess, method: str, path: str, status: int, code: int
) -> None:
    got, body, headers = raw(control_server, method, path)

    assert got == status
    assert body["success"] is False
    assert body["result"] is None
    assert body["messages"] == []
    assert [error["code"] for error in body["errors"]] == [code]
    assert headers["x-request-id"].startswith("req_")
    assert headers["openai-version"] is None


def test_page_of_another_site_is_kept_away_in_cloudflares_envelope(
    control_server: ServerProcess,
) -> None:
    status, body, _ = raw(
        control_server,
        "GET",
        "/client/v4/accounts/a/ai-gateway/gateways",
        {"origin": "https://evil.example"},
    )

    assert status == 403
    assert body["success"] is False


def test_openai_routes_still_fail_as_openai_does(control_server: ServerProcess) -> None:
    status, body, headers = raw(control_server, "GET", "/v1/nothing")

    assert status == 404
    assert body["error"]["code"] == "unknown_url"
    assert headers["openai-version"] == "2020-10-01"


def test_every_change_is_in_the_audit_log(
    guarded_server: ServerProcess, cloudflare_for: CloudflareFor, account: str
) -> None:
    key_id, secret = guarded_server.make_key(account=account, scopes=("admin",))
    client = cloudflare_for(guarded_server, token=secret)
    fill(client, account)
    client.ai_gateway.update("gw", account_id=account, **{**REQUIRED, "cache_ttl": 60})
    client.ai_gateway.delete("gw", account_id=account)
    owner = cloudflare_for(guarded_server, token="token-of-the-owner")
    owner.ai_gateway.custom_providers.delete("mine", account_id=account)

    def audit(query: str = "") -> list[dict[str, Any]]:
        answer: Any = client.get(f"/accounts/{account}/ai-gateway/audit{query}", cast_to=object)
        rows: list[dict[str, Any]] = answer["result"]
        return rows

    entries = audit()
    assert [(row["action"], row["kind"], row["target"]) for row in entries] == [
        ("delete", "custom_provider", "/custom-providers/mine"),
        ("delete", "gateway", "gw"),
        ("update", "gateway", "gw"),
        ("create", "custom_provider", "/custom-providers/mine"),
        ("create", "provider_config", "gw/openai:main"),
        ("create", "gateway", "gw"),
    ]
    assert [row["actor"] for row in entries] == ["token", *[key_id] * 5]
    assert entries[2]["changed"] == ["cache_ttl"]
    pages = [audit("?per_page=2")]
    while pages[-1]:
        pages.append(audit(f"?per_page=2&before={pages[-1][-1]['at']}"))
    assert [row for page in pages for row in page] == entries


def test_open_server_writes_down_that_nobody_is_known(
    control_server: ServerProcess, cloudflare: Cloudflare, account: str
) -> None:
    cloudflare.ai_gateway.create(account_id=account, id="gw", **REQUIRED)

    answer: Any = cloudflare.get(f"/accounts/{account}/ai-gateway/audit", cast_to=object)

    assert [row["actor"] for row in answer["result"]] == ["anonymous"]
