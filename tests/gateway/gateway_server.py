"""The real server in front of a stand-in provider, and an account of a test's own on it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from openworks.app.state import database_url
from openworks.core.clock import SystemClock
from openworks.ports.calls import CallRecord, UsageRow
from openworks.storage.sql.database import Database, DatabaseConfig
from openworks.storage.sql.records import SqlRecordStore
from tests.gateway.stand_in import StandIn
from tests.server import SETTLE_S, ServerProcess

TOKEN = "owner-token-of-the-tests"
PROVIDER_KEY = "sk-the-callers-own-provider-key"
_REQUIRED = {
    "cache_ttl": 0,
    "cache_invalidate_on_update": False,
    "collect_logs": True,
    "rate_limiting_interval": 0,
    "rate_limiting_limit": 0,
}


class GatewayServer:
    """A server whose providers are one stand-in."""

    def __init__(
        self, provider: StandIn, folder: Path, flags: Mapping[str, Any] | None = None
    ) -> None:
        """Start it.

        Args:
            provider: Answers as OpenAI, Anthropic, Groq and DeepSeek.
            folder: Where the server keeps its state.
            flags: Further settings.
        """
        self.provider = provider
        bases = {
            "openai": f"{provider.url}/v1",
            "anthropic": f"{provider.url}/v1",
            "groq": f"{provider.url}/groq/v1",
            "deepseek": f"{provider.url}/deepseek/v1",
            "google-ai-studio": f"{provider.url}/google",
        }
        self.process = ServerProcess(
            {
                "access.token": TOKEN,
                "gateway.base_urls": bases,
                "gateway.allow_private_providers": True,
                **(flags or {}),
            },
            folder,
        )
        self.url = self.process.url
        self.http = httpx2.Client(timeout=60.0)

    def stop(self) -> None:
        """End it as an operator would, and see that it ended well."""
        self.http.close()
        assert self.process.stop() == 0

    def control(
        self, method: str, path: str, body: object = None, *, account: str = "default"
    ) -> Any:
        """Ask the control plane as the owner; return the result."""
        answer = self.http.request(
            method,
            f"{self.url}/client/v4/accounts/{account}/ai-gateway{path}",
            json=body,
            headers={"authorization": f"Bearer {TOKEN}"},
        )
        assert answer.is_success, answer.text
        return answer.json()["result"]

    def records(self) -> list[CallRecord]:
        """What the ledger holds, newest first."""
        return asyncio.run(self._read_records())

    def sums(self) -> Sequence[UsageRow]:
        """What the ledger's sums hold, by account."""
        return asyncio.run(self._read_sums())

    async def _read_records(self) -> list[CallRecord]:
        database = Database(DatabaseConfig(url=database_url(self.process.settings)))
        await database.open()
        try:
            store = SqlRecordStore(database, clock=SystemClock())
            return list(await store.list_recent(limit=1_000_000))
        finally:
            await database.close()

    async def _read_sums(self) -> Sequence[UsageRow]:
        database = Database(DatabaseConfig(url=database_url(self.process.settings)))
        await database.open()
        try:
            return await SqlRecordStore(database, clock=SystemClock()).summarise(group="account")
        finally:
            await database.close()


@dataclass(slots=True)
class Place:
    """One account, which no other test shares."""

    server: GatewayServer
    account: str

    @property
    def provider(self) -> StandIn:
        return self.server.provider

    def url(self, path: str = "", gateway: str = "default") -> str:
        """Return a data plane's address: of `provider/endpoint`, or of the universal endpoint."""
        return f"{self.server.url}/gateway/v1/{self.account}/{gateway}/{path}".rstrip("/")

    def make(self, name: str = "gw", **fields: object) -> str:
        """Make a gateway, or change it wholly; return its name."""
        rows = self.server.control("GET", "/gateways?per_page=50", account=self.account)
        body = {**_REQUIRED, **fields}
        if any(row["id"] == name for row in rows):
            self.server.control("PUT", f"/gateways/{name}", body, account=self.account)
        else:
            self.server.control("POST", "/gateways", {"id": name, **body}, account=self.account)
        return name

    def keep_credential(
        self,
        secret: str,
        *,
        gateway: str = "gw",
        provider: str = "openai",
        alias: str = "default",
        default: bool = True,
        **more: object,
    ) -> None:
        """Store a provider's key."""
        self.server.control(
            "POST",
            f"/gateways/{gateway}/provider_configs",
            {
                "alias": alias,
                "provider_slug": provider,
                "default_config": default,
                "secret": secret,
                **more,
            },
            account=self.account,
        )

    def make_route(
        self, elements: list[dict[str, Any]], *, gateway: str = "gw", name: str = "r"
    ) -> Any:
        """Make a dynamic route, deployed at once."""
        return self.server.control(
            "POST",
            f"/gateways/{gateway}/routes",
            {"name": name, "elements": elements},
            account=self.account,
        )

    def headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the owner's secret in the gateway's header, and a key of the provider's."""
        return {
            "cf-aig-authorization": f"Bearer {TOKEN}",
            "authorization": f"Bearer {PROVIDER_KEY}",
            **(more or {}),
        }

    def post(
        self,
        path: str,
        body: object,
        *,
        gateway: str = "default",
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send one POST and read its answer; a body of bytes goes as it is."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.server.http.post(
            self.url(path, gateway),
            content=content,
            headers=self.headers({"content-type": "application/json", **(headers or {})}),
        )

    def chat(
        self,
        model: str = "mock",
        *,
        gateway: str = "default",
        headers: Mapping[str, str] | None = None,
        **more: object,
    ) -> httpx2.Response:
        """Ask OpenAI's chat endpoint."""
        return self.post(
            "openai/chat/completions", chat_body(model, **more), gateway=gateway, headers=headers
        )

    def records(self, count: int = 0) -> list[CallRecord]:
        """Return this account's records, oldest first, once there are at least `count`."""
        deadline_s = time.monotonic() + SETTLE_S
        while True:
            found = [
                record for record in self.server.records() if record.account_id == self.account
            ]
            if len(found) >= count or time.monotonic() > deadline_s:
                assert len(found) >= count, f"{len(found)} records, and not {count}"
                return found[::-1]
            time.sleep(0.05)

    def record_of(self, answer: httpx2.Response) -> CallRecord:
        """Return the one record of a call."""
        log_id = answer.headers["cf-aig-log-id"]
        deadline_s = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline_s:
            found = [record for record in self.server.records() if record.id == log_id]
            if found:
                (record,) = found
                return record
            time.sleep(0.05)
        raise AssertionError(f"There is no record {log_id}.")


def chat_body(model: str = "mock", **more: object) -> dict[str, Any]:
    """Return a small question."""
    return {"model": model, "messages": [{"role": "user", "content": "Say something."}], **more}


def message_body(model: str = "mock", **more: object) -> dict[str, Any]:
    """Return a small question to Anthropic."""
    return {**chat_body(model), "max_tokens": 64, **more}
