"""What a request asks for: the providers to try, in order, and what each is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol, cast

import msgspec
import orjson

from openworks.core.clock import Clock
from openworks.core.errors import InvalidRequestError, NotFoundError
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.compat.base import Operation, Translator
from openworks.gateway.compat.model_name import with_model
from openworks.gateway.compat.translators import translator
from openworks.gateway.messages import JSON_HEADER, GatewayRequest
from openworks.gateway.options import (
    MAX_ATTEMPTS,
    MAX_DELAY_MS,
    MAX_TTL_S,
    Options,
    custom_cost,
    flat_metadata,
    forwarded,
)
from openworks.gateway.providers.base import AUTH_HEADERS, Auth, Credential, Provider
from openworks.gateway.providers.peek import Peek, peek
from openworks.gateway.providers.prepare import headers_of
from openworks.gateway.providers.registry import openai_endpoint
from openworks.gateway.secrets import bearer, take_our_secret
from openworks.ports.gateways import Backoff
from openworks.ports.upstream import Headers

MAX_STEPS = 20

OPERATIONS: Mapping[str, Operation] = {"chat/completions": "chat", "embeddings": "embeddings"}


@dataclass(slots=True, kw_only=True)
class Step:
    """One provider to ask, and the bytes to ask it with."""

    provider: Provider
    endpoint: str
    query: bytes
    method: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    peek: Peek
    options: Options
    translator: Translator | None = None
    """Turns the answer into OpenAI's shape; None where the provider's bytes are the answer."""
    asked: JsonObject | None = None
    """The request in OpenAI's shape, where there is a translator."""
    brought_credential: bool = False
    """Whether the headers hold the caller's own credential for this provider."""
    default_timeout_ms: int | None = None
    """Of a route's element; the caller's own goes before it."""

    def brought_digest(self) -> bytes:
        """Name the caller's own credential without telling it: what one caller does to it is
        nothing to another's."""
        if not self.brought_credential:
            return b""
        brought = [value for name, value in self.headers if name in AUTH_HEADERS]
        return sha256(b"\0".join(brought)).digest()[:16]

    @property
    def counts_tokens(self) -> bool:
        """Whether the endpoint is one whose answers take tokens, so that they must be counted."""
        return bool(self.peek.model) and self.method == b"POST"

    is_routed: bool = False
    """Whether the gateway chose the model, so that the caller must be told which."""


class _Item(msgspec.Struct):
    """A step of the universal endpoint."""

    provider: str
    endpoint: str = ""
    headers: dict[str, Any] = {}
    query: msgspec.Raw = msgspec.Raw(b"{}")
    config: dict[str, Any] = {}


_items = msgspec.json.Decoder(list[_Item])
_item = msgspec.json.Decoder(_Item)


def native_step(
    request: GatewayRequest,
    provider: Provider,
    headers: list[tuple[bytes, bytes]],
    options: Options,
    *,
    brought_credential: bool,
) -> Step:
    """The caller speaks the provider's own language."""
    return Step(
        provider=provider,
        endpoint=request.endpoint,
        query=request.query,
        method=request.method,
        headers=headers,
        body=request.body,
        peek=peek(provider, request.endpoint, request.body),
        options=options,
        brought_credential=brought_credential,
    )


class ProviderLookup(Protocol):
    """Providers and their stored credentials, as one gateway knows them."""

    def find(self, slug: str) -> Provider:
        """Return a provider.

        Raises:
            NotFoundError: Neither built in nor of this account.
        """
        ...

    def credentials(self, provider: Provider, aliases: str | None) -> tuple[Credential, ...]:
        """Return the stored credentials to use, which may be none.

        Raises:
            InvalidRequestError: There is none with such an alias.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UniversalItem:
    """One step of the universal endpoint, as if it had been a request of its own."""

    provider: str
    endpoint: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    options: Options
    brought_credential: bool


def universal_items(request: GatewayRequest, options: Options) -> list[UniversalItem]:
    """Read the universal endpoint's body: an array of steps, or a single one.

    Raises:
        InvalidRequestError: It is neither, or an item has no sense; the message names its place.
    """
    try:
        body = request.body.lstrip()
        items = _items.decode(body) if body.startswith(b"[") else [_item.decode(body)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequestError(
            f"The universal endpoint takes an array of steps {{provider, endpoint, headers, query, "
            f"config}}: {exc}.",
            code="invalid_json",
        ) from None
    if not 1 <= len(items) <= MAX_STEPS:
        raise InvalidRequestError(f"There must be 1 to {MAX_STEPS} steps, got {len(items)}.")
    return [_read_item(item, f"[{at}]", options) for at, item in enumerate(items)]


def _read_item(item: _Item, where: str, options: Options) -> UniversalItem:
    endpoint, _, query = item.endpoint.lstrip("/").partition("?")
    given = {name: str(value) for name, value in item.headers.items() if value is not None}
    headers = forwarded(headers_of(given))
    shown = options.authorization
    take_our_secret(None, headers, shown and bearer(shown))  # none of ours goes out
    if not any(name == b"content-type" for name, _ in headers):
        headers.append(JSON_HEADER)
    config = config_options(item.config, f"{where}.config")
    if not endpoint:
        raise InvalidRequestError(
            f"{where}.endpoint must be the provider's path, such as chat/completions; it is "
            "missing.",
            param=f"{where}.endpoint",
        )
    return UniversalItem(
        provider=item.provider,
        endpoint=endpoint,
        query=query.encode(),
        headers=headers,
        body=bytes(item.query),
        options=config.over(options),
        brought_credential=any(name in AUTH_HEADERS for name, _ in headers),
    )


def universal_step(item: UniversalItem, lookup: ProviderLookup) -> Step:
    """Ask a provider in its own language.

    Raises:
        NotFoundError: There is no such provider.
    """
    provider = lookup.find(item.provider)
    return Step(
        provider=provider,
        endpoint=item.endpoint,
        query=item.query,
        method=b"POST",
        headers=item.headers,
        body=item.body,
        peek=peek(provider, item.endpoint, item.body),
        options=item.options,
        brought_credential=item.brought_credential,
    )


_CONFIG_NUMBERS = {
    "requestTimeout": ("timeout_ms", 86_400_000),
    "maxAttempts": ("max_attempts", MAX_ATTEMPTS),
    "retryDelay": ("retry_delay_ms", MAX_DELAY_MS),
    "cacheTtl": ("cache_ttl_s", MAX_TTL_S),
}
_CONFIG_FLAGS = {
    "skipCache": "skip_cache",
    "collectLog": "collect_log",
    "collectLogPayload": "collect_payload",
}


def config_options(config: Mapping[str, JsonValue], where: str) -> Options:
    """Read a step's `config`, in the spelling of the universal endpoint.

    Raises:
        InvalidRequestError: A member is unknown or wrong.
    """
    options = Options()
    for key, value in config.items():
        name = f"{where}.{key}"
        if key in _CONFIG_NUMBERS:
            field, most = _CONFIG_NUMBERS[key]
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
                raise InvalidRequestError(
                    f"{name} must be a whole number from 0 to {most}, got {value!r:.80}.",
                    param=name,
                )
            setattr(options, field, value)
        elif key in _CONFIG_FLAGS:
            if not isinstance(value, bool):
                raise InvalidRequestError(
                    f"{name} must be true or false, got {value!r:.80}.", param=name
                )
            setattr(options, _CONFIG_FLAGS[key], value)
        else:
            _read_config_text(options, key, value, name)
    return options


def _read_config_text(options: Options, key: str, value: JsonValue, name: str) -> None:
    if key == "backoff" and value in ("constant", "linear", "exponential"):
        options.backoff = cast("Backoff", value)
    elif key == "cacheKey" and isinstance(value, str):
        options.cache_key = value.encode()
    elif key == "metadata":
        options.metadata = flat_metadata(value, name)
    elif key == "customCost":
        options.custom_cost = custom_cost(value, name)
    elif key == "eventId" and isinstance(value, str):
        options.event_id = value[:1024]
    elif key == "byokAlias" and isinstance(value, str):
        options.byok_alias = value
    else:
        known = key in ("backoff", "cacheKey", "eventId", "byokAlias")
        what = f"cannot be {value!r:.80}" if known else "is not a known option"
        raise InvalidRequestError(f"{name} {what}.", param=name)


def compat_step(
    body: bytes,
    operation: Operation,
    model: str,
    lookup: ProviderLookup,
    headers: list[tuple[bytes, bytes]],
    options: Options,
    *,
    brought_credential: bool,
    clock: Clock,
) -> Step:
    """Ask `provider/model` in OpenAI's shape, whatever the provider itself speaks.

    Raises:
        InvalidRequestError: The model names no provider, or one without this operation.
        NotFoundError: There is no such provider.
    """
    slug, name = split_model(model)
    provider = lookup.find(slug)
    template = provider.chat_path if operation == "chat" else provider.embeddings_path
    native = translator(slug, operation, name, clock=clock)
    asked: JsonObject | None = None
    if native is not None:
        asked = read_object(body)
        asked["model"] = name
        made = native.request(asked)
        path = _placed(made.path, provider, lookup, options)
        sent, extra = made.body, made.headers
    elif template is not None:
        path = _filled(template, provider, name, lookup, options)
        sent, extra = with_model(body, name), []
    else:
        raise InvalidRequestError(
            f"The provider {slug!r} has no {operation} endpoint in OpenAI's shape.", param="model"
        )
    return Step(
        provider=provider,
        endpoint=path,
        query=b"",
        method=b"POST",
        headers=[*_in_own_header(provider, headers), *extra],
        body=sent,
        peek=peek(provider, path, sent),
        options=options,
        translator=native,
        asked=asked,
        brought_credential=brought_credential,
    )


_KEY_HEADERS: Mapping[Auth, bytes] = {"x-api-key": b"x-api-key", "api-key": b"api-key"}
_NO_KEYS = (b"sk-ant-oat", b"eyJ")
"""How OAuth's tokens begin, which do belong into `authorization`."""


def _in_own_header(provider: Provider, headers: Headers) -> Headers:
    """Put a caller's key where the provider looks for it: OpenAI's clients know only one place."""
    own = _KEY_HEADERS.get(provider.auth)
    if own is None or any(name == own for name, _ in headers):
        return headers
    return [
        (own, bearer(value))
        if name == b"authorization" and not bearer(value).startswith(_NO_KEYS)
        else (name, value)
        for name, value in headers
    ]


_PLACES: Mapping[str, str] = {
    "bedrock": "bedrock-runtime/{region}/",
    "vertex": "v1/projects/{project}/locations/{region}/",
}
"""What stands before a translator's path where the account decides the place."""


def _placed(path: str, provider: Provider, lookup: ProviderLookup, options: Options) -> str:
    place = _PLACES.get(provider.layout)
    return path if place is None else _filled(place, provider, "", lookup, options) + path


def _filled(
    template: str, provider: Provider, model: str, lookup: ProviderLookup, options: Options
) -> str:
    if "{" not in template:
        return template
    stored = lookup.credentials(provider, options.byok_alias)
    place = stored[0] if stored else None
    return openai_endpoint(
        template,
        model=model,
        project=place.project if place is not None else "",
        region=place.region if place is not None else "",
    )


def split_model(model: str) -> tuple[str, str]:
    """Split `provider/model`; `@cf/...` alone is this server's.

    Raises:
        InvalidRequestError: There is no provider in it.
    """
    if model.startswith("@"):
        return "workers-ai", model
    slug, slash, name = model.partition("/")
    if not slash or not name:
        raise InvalidRequestError(
            f"model must be provider/model, such as openai/gpt-4.1, got {model!r:.120}.",
            param="model",
        )
    return slug, name


def read_object(body: bytes) -> JsonObject:
    """Decode a JSON object.

    Raises:
        InvalidRequestError: It is something else.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequestError(
            f"The body of this request is not valid JSON: {exc}.", code="invalid_json"
        ) from None
    if not isinstance(value, dict):
        raise InvalidRequestError("The body must be a JSON object.", code="invalid_json")
    return value


def unknown_provider(slug: str) -> NotFoundError:
    """What a caller is told of a provider that nobody knows."""
    return NotFoundError(
        f"There is no provider {slug!r:.80}; one of your own is named custom-SLUG.",
        code="unknown_provider",
    )
