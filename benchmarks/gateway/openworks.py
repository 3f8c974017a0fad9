"""Starts openworks for the benchmark, with keys, gateways and a provider's key in its database."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gateway.processes import LOAD_CORE, free_port, running, wait_for_port
from benchmarks.gateway.upstream import Upstream

_EVERYTHING: dict[str, object] = {
    "cache_ttl": 3600,
    "cache_invalidate_on_update": False,
    "collect_logs": True,
    "rate_limiting_interval": 60,
    "rate_limiting_limit": 1_000_000_000,
    "rate_limiting_technique": "sliding",
    "spend_limits": {"rules": [{"limit": 1_000_000, "limitType": "cost", "window": 86_400}]},
    # A day at full speed would fill the disk; the deletions belong to the measurement.
    "log_management": 1_000_000,
    "log_management_strategy": "DELETE_OLDEST",
}
_DLP = {"enabled": True, "action": "REDACT", "profiles": ["credentials", "financial"]}
GATEWAYS: dict[str, dict[str, object]] = {
    "everything": _EVERYTHING,
    "dlp": {**_EVERYTHING, "dlp": _DLP},
    "unlogged": {**_EVERYTHING, "collect_logs": False},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A data folder to start from, and the keys in it."""

    data: Path
    key: str = field(repr=False)
    admin_key: str = field(repr=False)
    upstream: Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A server that runs."""

    pid: int
    url: str
    data: Path

    def gateway_url(self, gateway: str) -> str:
        return f"{self.url}/gateway/v1/default/{gateway}/openai/chat/completions"


def prepare(folder: Path, upstream: Upstream) -> Prepared:
    """Make keys with the command line, and gateways over the control plane."""
    data = folder / "openworks"
    prepared = Prepared(
        data=data,
        key=_make_key(data, "bench", "inference"),
        admin_key=_make_key(data, "admin", "admin"),
        upstream=upstream,
    )
    with serving(prepared, folder, core=LOAD_CORE, copies=False) as server:
        for name, fields in GATEWAYS.items():
            _post(server, prepared, "gateways", {"id": name, **fields})
            credential = {
                "alias": "default",
                "provider_slug": "openai",
                "default_config": True,
                "secret": "sk-upstream",
            }
            _post(server, prepared, f"gateways/{name}/provider_configs", credential)
    return prepared


def _make_key(data: Path, name: str, scope: str) -> str:
    made = subprocess.run(
        [
            *(sys.executable, "-m", "openworks", "keys", "create", "--json"),
            *("--name", name, "--scope", scope, "--data-dir", str(data)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    secret: str = json.loads(made.stdout)["secret"]
    return secret


def _post(server: Serving, prepared: Prepared, path: str, body: dict[str, object]) -> None:
    request = urllib.request.Request(
        f"{server.url}/client/v4/accounts/default/ai-gateway/{path}",
        data=json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {prepared.admin_key}",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=30):
        pass


@contextmanager
def serving(
    prepared: Prepared, folder: Path, *, core: int, copies: bool = True
) -> Iterator[Serving]:
    """Run a server on one core, on a copy of the prepared data unless told otherwise."""
    data = prepared.data
    if copies:
        data = Path(tempfile.mkdtemp(prefix="data-", dir=folder))
        shutil.copytree(prepared.data, data, dirs_exist_ok=True)
    port = free_port()
    log = folder / "openworks.log"
    command = [
        *(sys.executable, "-m", "openworks", "serve"),
        *("--port", str(port), "--data-dir", str(data)),
    ]
    environment = {
        "OPENWORKS_LOG__LEVEL": "warning",
        "OPENWORKS_GATEWAY__BASE_URLS": json.dumps({"openai": prepared.upstream.base_url}),
        # As many streams at once as the load opens; the usual bound protects providers.
        "OPENWORKS_GATEWAY__HTTP__MAX_CONNECTIONS": "4096",
        # No chat model, so none is loaded at the start.
        "OPENWORKS_CATALOG__DEFAULTS": "{}",
    }
    with running(command, core=core, log=log, environment=environment, folder=folder) as process:
        try:
            wait_for_port(process, port)
        except RuntimeError as exc:
            raise RuntimeError(f"openworks: {exc} {log.read_text()[-2000:]}") from exc
        yield Serving(pid=process.pid, url=f"http://127.0.0.1:{port}", data=data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What the database says was served."""

    calls: int
    cost_usd: float


def read_logged(data: Path) -> Logged:
    """Add up the calls in a server's database; call it when the server has ended."""
    with closing(sqlite3.connect(f"file:{data / 'openworks.db'}?mode=ro", uri=True)) as database:
        row = database.execute(
            "SELECT count(*), coalesce(sum(cost_usd), 0) FROM call_records"
        ).fetchone()
    return Logged(calls=row[0], cost_usd=row[1])
