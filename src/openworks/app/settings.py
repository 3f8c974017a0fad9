"""Settings: defaults < `openworks.toml` < `OPENWORKS_*` < flags.

The one place that reads the environment and the settings file. Each part is the frozen config of
the component that uses it; here they are composed, and filled from text with every mistake named.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from openworks.api.body import BodyLimits
from openworks.converters.process import DocumentsConfig
from openworks.core.errors import AppError
from openworks.engines.pool import EnginesConfig
from openworks.gateway.http.config import HttpConfig
from openworks.gateway.ledger import LedgerConfig
from openworks.ports.upstream import Timeouts
from openworks.services.alerts import AlertsConfig
from openworks.services.batches.batches import BatchesConfig
from openworks.services.catalog import CatalogConfig
from openworks.services.files import FilesConfig
from openworks.services.finetunes import FinetunesConfig
from openworks.services.journal import JournalConfig
from openworks.services.keys import AccessConfig
from openworks.services.logpush import LogpushConfig
from openworks.services.runs.runs import RunsConfig
from openworks.services.workers import WorkersConfig
from openworks.storage.blobs.s3 import S3Config
from openworks.storage.logbook.process import SpoolConfig

PREFIX = "OPENWORKS_"
DEFAULT_FILE = Path("openworks.toml")
_ACCESS_TOKEN = "OPENWORKS_ACCESS_TOKEN"
_HUB_VARIABLES = {"HF_ENDPOINT": "hub.endpoint", "HF_TOKEN": "hub.token"}
"""What users of the Hub's own tools have set already."""
_SECRETS = (
    "access.token",
    "hub.token",
    "database.url",
    "blobs.s3.secret_access_key",
    "gateway.secret_key",
    "gateway.redis_url",
)
"""Settings whose values no message may repeat."""


class SettingsError(AppError):
    """A setting is unknown or wrong; names key, value and what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where the server listens, and to whom."""

    host: str = "127.0.0.1"
    """The address to bind. Any but loopback needs a key."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """The TCP port; 0 for a free one."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call from a browser; `*` for all."""
    allowed_hosts: tuple[str, ...] = ()
    """Names, beside those of this machine, by which an open server may be called."""
    header_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 15.0
    """Seconds within which a request's headers must have come."""
    max_requests: Annotated[int, Field(ge=1)] = 4096
    """Requests under way at once; further ones get a 503."""
    shutdown_grace_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    """Seconds that running requests have to end when the server is stopped."""
    body: BodyLimits = BodyLimits()
    """Limits on request bodies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """Where weights come from."""

    endpoint: str = "https://huggingface.co"
    """The Hub, or a mirror that speaks its API; HF_ENDPOINT sets it too."""
    token: str | None = field(default=None, repr=False)
    """For gated and private repositories; HF_TOKEN sets it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """Where state is kept."""

    url: str | None = field(default=None, repr=False)
    """An SQLAlchemy URL; None for SQLite in the data folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSettings:
    """Where bodies of calls, files and adapters are kept."""

    url: str | None = field(default=None, repr=False)
    """`s3://bucket/prefix`, `gs://…`, `az://…` or a folder; None for one in the data folder."""
    s3: S3Config = S3Config()
    """For a URL that begins with `s3://`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """The AI Gateway."""

    secret_key: str | None = field(default=None, repr=False)
    """Encrypts stored secrets: 32 bytes as base64 or hex; None for a file in the data folder."""
    allow_private_providers: bool = False
    """Whether custom providers may be on this machine and in private networks."""
    base_urls: Mapping[str, str] = field(default_factory=dict)
    """Provider slug → another base URL: a mirror, a proxy, a server of your own."""
    cache_mib: Annotated[int, Field(ge=0)] = 64
    """Memory for answers that are given again."""
    redis_url: str | None = field(default=None, repr=False)
    """A Redis or Valkey that several servers share limits and answers through; None for none."""
    redis_when_down: Literal["local", "refuse"] = "local"
    """Limits while Redis is away: each server's part of what is left, or no calls."""
    redis_processes: Annotated[int, Field(ge=1)] = 1
    """How many servers share it at least, for their parts while it is away."""
    http: HttpConfig = HttpConfig()
    """Connections to providers."""
    timeouts: Timeouts = Timeouts()
    """How patient to be with providers."""
    logpush: LogpushConfig = LogpushConfig()
    """Where logs of gateways with `logpush` go."""
    alerts: AlertsConfig = AlertsConfig()
    """How often alerts are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What the server says while it runs."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important events that are shown."""
    format: Literal["auto", "text", "json"] = "auto"
    """`auto`: text on a terminal, one JSON object a line elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set."""

    data_dir: Path = Path("~/.openworks")
    """Where the database and fetched weights lie."""
    models: tuple[str, ...] = ()
    """Models to serve beside the catalogue: Hub repositories, .gguf files, catalogue ids."""
    server: ServerConfig = ServerConfig()
    access: AccessConfig = AccessConfig()
    catalog: CatalogConfig = CatalogConfig()
    engines: EnginesConfig = EnginesConfig()
    finetunes: FinetunesConfig = FinetunesConfig()
    files: FilesConfig = FilesConfig()
    documents: DocumentsConfig = DocumentsConfig()
    jobs: WorkersConfig = WorkersConfig()
    runs: RunsConfig = RunsConfig()
    batches: BatchesConfig = BatchesConfig()
    events: JournalConfig = JournalConfig()
    hub: HubSettings = HubSettings()
    database: DatabaseSettings = DatabaseSettings()
    blobs: BlobSettings = BlobSettings()
    ledger: LedgerConfig = LedgerConfig()
    logbook: SpoolConfig = SpoolConfig()
    gateway: GatewaySettings = GatewaySettings()
    log: LogConfig = LogConfig()

    @property
    def folder(self) -> Path:
        """`data_dir` with `~` resolved."""
        return self.data_dir.expanduser()


def load_settings(*, file: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings of this process.

    Args:
        file: A settings file that must exist; None for `openworks.toml`, if there is one.
        flags: Dotted key → value, from the command line; None values are not set.

    Raises:
        SettingsError: Something is unknown or wrong.
    """
    table: dict[str, Any] = {}
    if file is not None or DEFAULT_FILE.exists():
        _merge(table, _read_toml(file or DEFAULT_FILE))
    for key, value in _environment(os.environ):
        _set(table, key, value)
    for key, value in (flags or {}).items():
        if value is not None:
            _set(table, key, value)
    return cast("Settings", _build(Settings, table, ""))


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SettingsError(f"Cannot read the settings file {file}: {exc.strerror}.") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError(f"The settings file {file} is not valid TOML: {exc}.") from exc


def _environment(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, value): `OPENWORKS_SERVER__PORT` is `server.port`."""
    for variable, key in _HUB_VARIABLES.items():
        if variables.get(variable):
            yield key, variables[variable]
    for name, value in variables.items():
        if name == _ACCESS_TOKEN:
            yield "access.token", value
        elif name.startswith(PREFIX):
            yield name.removeprefix(PREFIX).lower().replace("__", "."), value


def _set(table: dict[str, Any], key: str, value: object) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = table.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"Setting {key!r}: {parent!r} is a value, not a section.")
        table = inner
    table[last] = value


def _merge(table: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(table.get(key), dict):
            _merge(table[key], value)
        else:
            table[key] = value


def _build(kind: type, table: object, path: str) -> object:
    """Make a config of `kind` from a table, naming whatever does not fit."""
    if not isinstance(table, dict):
        raise SettingsError(f"Setting {path!r} is a section, got {_shown(table, path)}.")
    hints = get_type_hints(kind, include_extras=True)
    values: dict[str, object] = {}
    for key, value in table.items():
        where = f"{path}.{key}" if path else key
        if key not in hints:
            raise _unknown(where, key, list(hints))
        inner = hints[key]
        values[key] = (
            _build(cast("type", inner), value, where)
            if dataclasses.is_dataclass(inner)
            else _leaf(inner, value, where)
        )
    return kind(**values)


def _leaf(kind: Any, value: object, path: str) -> object:
    """Check one value; a text from the environment may stand for a list or a table."""
    arguments = get_args(kind)
    if isinstance(value, dict) and len(arguments) == 2 and dataclasses.is_dataclass(arguments[1]):
        inner = cast("type", arguments[1])
        return {key: _build(inner, item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, str) and _is_collection(kind):
        value = _parsed(value)
    if path in _SECRETS and isinstance(value, str) and not value.strip():
        raise SettingsError(f"Setting {path!r} cannot be empty: give it a value, or leave it out.")
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as exc:
        raise SettingsError(
            f"Setting {path!r} cannot be {_shown(value, path)}: {exc.errors()[0]['msg'].lower()}."
        ) from None


def _shown(value: object, path: str) -> str:
    """Write a value for a message, unless it is a secret or may hold one."""
    is_secret = any(secret == path or secret.startswith(f"{path}.") for secret in _SECRETS)
    return "what it is set to" if is_secret else repr(value)


def _is_collection(kind: Any) -> bool:
    return getattr(kind, "__origin__", None) in {tuple, Mapping}


def _parsed(text: str) -> object:
    """JSON, or items separated by commas."""
    if text.lstrip().startswith(("[", "{")):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return [item.strip() for item in text.split(",") if item.strip()]


def _unknown(path: str, key: str, known: list[str]) -> SettingsError:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else f" Known here: {', '.join(sorted(known))}."
    return SettingsError(f"Unknown setting {path!r}.{hint}")
