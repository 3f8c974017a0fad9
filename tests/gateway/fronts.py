"""An open server with models of its own, and providers that are a stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.api.weights import TestModels
from tests.gateway.stand_in import StandIn, stand_in_on_thread
from tests.server import ServerProcess

REQUIRED = {
    "cache_ttl": 0,
    "cache_invalidate_on_update": False,
    "collect_logs": True,
    "rate_limiting_interval": 0,
    "rate_limiting_limit": 0,
}
PROVIDER_SECRET = "sk-the-stored-one"


class Front:
    """The server, and how tests ask it."""

    def __init__(self, process: ServerProcess, provider: StandIn, token: str | None) -> None:
        self.process = process
        self.provider = provider
        self.url = process.url
        self.secret = {} if token is None else {"authorization": f"Bearer {token}"}
        self.http = httpx2.Client(timeout=60.0)

    def post(
        self, path: str, body: object, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """Send JSON, with the owner's token if there is one."""
        return self.http.post(
            f"{self.url}{path}",
            content=json.dumps(body).encode(),
            headers={"content-type": "application/json", **self.secret, **(headers or {})},
        )

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        """Ask for a document."""
        return self.http.get(f"{self.url}{path}", headers={**self.secret, **(headers or {})})

    def control(self, method: str, path: str, body: object, *, account: str = "default") -> Any:
        """Ask the control plane; return the result."""
        answer = self.http.request(
            method,
            f"{self.url}/client/v4/accounts/{account}/ai-gateway{path}",
            json=body,
            headers=self.secret,
        )
        assert answer.is_success, answer.text
        return answer.json()["result"]

    def make(self, name: str, *, account: str = "default", **fields: object) -> None:
        """Make a gateway."""
        self.control("POST", "/gateways", {"id": name, **REQUIRED, **fields}, account=account)

    def keep_credential(
        self, slug: str, *, gateway: str = "default", account: str = "default"
    ) -> None:
        """Store a provider's key."""
        body = {
            "alias": "default",
            "provider_slug": slug,
            "default_config": True,
            "secret": PROVIDER_SECRET,
        }
        self.control("POST", f"/gateways/{gateway}/provider_configs", body, account=account)


def route_to(provider: str, model: str) -> list[dict[str, Any]]:
    """Return a dynamic route that leads to one model."""
    asked = {"provider": provider, "model": model, "timeout": 60_000, "retries": 0}
    return [
        {"id": "start", "type": "start", "outputs": {"next": {"elementId": "m"}}},
        {
            "id": "m",
            "type": "model",
            "properties": asked,
            "outputs": {"success": {"elementId": "end"}},
        },
        {"id": "end", "type": "end", "outputs": {}},
    ]


@contextmanager
def open_front(
    folder: Path, models: TestModels | None, *, token: str | None = None, **flags: object
) -> Iterator[Front]:
    """Start a stand-in, and a server in front of it."""
    with stand_in_on_thread(StandIn()) as provider:
        files = [] if models is None else [models.plain, models.encoder, models.talker]
        settings: dict[str, Any] = {
            "models": [str(file) for file in files],
            "gateway.base_urls": {
                "openai": f"{provider.url}/v1",
                "anthropic": f"{provider.url}/v1",
            },
            **flags,
        }
        if token is not None:
            settings["access.token"] = token
        process = ServerProcess(settings, folder)
        front = Front(process, provider, token)
        try:
            yield front
        finally:
            front.http.close()
            assert process.stop() == 0
