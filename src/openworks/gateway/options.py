"""What a caller asks of the gateway in `cf-aig-*` headers, apart from what the provider is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, cast

import orjson

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonValue
from openworks.ports.gateways import Backoff, Metadata
from openworks.ports.upstream import Headers

MAX_METADATA = 5
MAX_ATTEMPTS = 5
MAX_DELAY_MS = 60_000
MAX_TTL_S = 31 * 86_400
MAX_COST_USD = 1_000_000
_MAX_NAME_BYTES = 1024
_MAX_WHOLE = 2**63 - 1

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate",
        b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
_NOT_FORWARDED: Final = _HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"cookie",
    b"accept-encoding",  # answers are read on their way, and loopback and data centres are fast
    b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"forwarded", b"x-real-ip",
}  # fmt: skip
_NOT_RETURNED: Final = _HOP_BY_HOP | {b"content-length", b"set-cookie", b"alt-svc"}
_NOT_RETURNED_BESIDE_LIMITS: Final = _NOT_RETURNED | {
    b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests",
    b"x-ratelimit-reset-requests",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomCost:
    """What a call costs in the caller's own reckoning."""

    per_token_in: float = 0.0
    per_token_out: float = 0.0
    total_usd: float | None = None


@dataclass(slots=True, kw_only=True)
class Options:
    """The `cf-aig-*` headers of one request; None where one was not sent."""

    authorization: bytes | None = field(default=None, repr=False)
    cache_ttl_s: int | None = None
    skip_cache: bool | None = None
    cache_key: bytes | None = None
    timeout_ms: int | None = None
    max_attempts: int | None = None
    retry_delay_ms: int | None = None
    backoff: Backoff | None = None
    metadata: Metadata | None = None
    collect_log: bool | None = None
    collect_payload: bool | None = None
    custom_cost: CustomCost | None = None
    event_id: str | None = None
    byok_alias: str | None = None
    session_id: str | None = None
    gateway_id: str | None = None
    trace_id: str | None = None
    parent_span_id: str | None = None

    def over(self, base: Options) -> Options:
        """Return these options, with those of `base` where these are silent."""
        values = {
            name: getattr(base, name)
            for name in self.__slots__
            if getattr(self, name) is None and getattr(base, name) is not None
        }
        return replace(self, **values) if values else self


def split_headers(headers: Headers) -> tuple[Options, Headers]:
    """Return what the gateway is told, and what the provider may see.

    Raises:
        InvalidRequestError: An option has no sense; the message names its header and value.
    """
    options = Options()
    forward: Headers = []
    for header in headers:
        name = header[0]
        if name.startswith(b"cf-"):
            reader = _READERS.get(name)
            if reader is not None:
                reader(options, name.decode(), header[1])
        elif name not in _NOT_FORWARDED:
            forward.append(header)
    return options, forward


def forwarded(headers: Headers) -> Headers:
    """Return those of a step's own headers that its provider may see."""
    return [header for header in headers if header[0] not in _NOT_FORWARDED]


def returned_headers(headers: Headers, *, has_limits: bool = False) -> Headers:
    """Return a provider's headers without those that belong to its connection alone.

    Args:
        headers: As they came.
        has_limits: Whether the caller is told of limits of ours, in the place of its own.
    """
    dropped = _NOT_RETURNED_BESIDE_LIMITS if has_limits else _NOT_RETURNED
    return [header for header in headers if header[0] not in dropped]


_Reader = Callable[[Options, str, bytes], None]


def _text(field: str) -> _Reader:
    def read(options: Options, name: str, value: bytes) -> None:
        if len(value) > _MAX_NAME_BYTES:
            raise _bad(name, value, f"at most {_MAX_NAME_BYTES} bytes")
        setattr(options, field, value.decode("utf-8", "replace"))

    return read


def _raw(field: str) -> _Reader:
    def read(options: Options, name: str, value: bytes) -> None:
        setattr(options, field, value)

    return read


def _hexadecimal(field: str, digits: int) -> _Reader:
    def read(options: Options, name: str, value: bytes) -> None:
        text = value.decode("latin-1").lower()
        if len(text) != digits or not set(text) <= _HEX_DIGITS or not text.strip("0"):
            raise _bad(name, value, f"{digits} hexadecimal digits, not all zero")
        setattr(options, field, text)

    return read


_HEX_DIGITS = frozenset("0123456789abcdef")


def _whole(field: str, most: int) -> _Reader:
    def read(options: Options, name: str, value: bytes) -> None:
        if not value.isdigit() or len(value) > 12 or int(value) > most:
            raise _bad(name, value, f"a whole number from 0 to {most}")
        setattr(options, field, int(value))

    return read


def _flag(field: str) -> _Reader:
    def read(options: Options, name: str, value: bytes) -> None:
        known = _FLAGS.get(value.lower())
        if known is None:
            raise _bad(name, value, "true or false")
        setattr(options, field, known)

    return read


_FLAGS = {b"true": True, b"1": True, b"false": False, b"0": False}


def _backoff(options: Options, name: str, value: bytes) -> None:
    text = value.decode("ascii", "replace")
    if text not in ("constant", "linear", "exponential"):
        raise _bad(name, value, "constant, linear or exponential")
    options.backoff = cast("Backoff", text)


def _metadata(options: Options, name: str, value: bytes) -> None:
    options.metadata = flat_metadata(_json(name, value), name)


def flat_metadata(value: JsonValue, name: str) -> Metadata:
    """Return the first five flat entries of an object; nested ones are left out, as documented.

    Raises:
        InvalidRequestError: It is no object, or a number that no ledger holds.
    """
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{name} must be a JSON object, got {value!r:.80}.", param=name)
    flat = {
        key[:256]: item[:1024] if isinstance(item, str) else item
        for key, item in value.items()
        if isinstance(item, (str, int, float, bool))
    }
    flat = dict(islice(flat.items(), MAX_METADATA))
    for key, item in flat.items():
        if isinstance(item, int) and not -_MAX_WHOLE <= item <= _MAX_WHOLE:  # no ledger holds it
            raise InvalidRequestError(
                f"{name}.{key:.80} must be within 64 bits, got {len(str(item))} digits.", param=name
            )
    return flat


def _cost(options: Options, name: str, value: bytes) -> None:
    options.custom_cost = custom_cost(_json(name, value), name)


def custom_cost(value: JsonValue, name: str) -> CustomCost:
    """Read `{"per_token_in", "per_token_out"}` or `{"total_cost"}`.

    Raises:
        InvalidRequestError: It is neither.
    """
    if isinstance(value, dict):
        known = {key: item for key, item in value.items() if _is_price(item)}
        if known and known.keys() == value.keys():
            if known.keys() <= {"per_token_in", "per_token_out"}:
                return CustomCost(**{k: float(cast("float", v)) for k, v in known.items()})
            if known.keys() == {"total_cost"}:
                return CustomCost(total_usd=float(cast("float", known["total_cost"])))
    raise InvalidRequestError(
        f'{name} must be {{"per_token_in", "per_token_out"}} or {{"total_cost"}} with numbers from '
        f"0 to {MAX_COST_USD}, got {value!r:.80}.",
        param=name,
    )


def _is_price(value: JsonValue) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= cast("float", value) <= MAX_COST_USD


def _json(name: str, value: bytes) -> JsonValue:
    try:
        return cast("JsonValue", orjson.loads(value))
    except orjson.JSONDecodeError:
        raise _bad(name, value, "JSON") from None


def _bad(name: str, value: bytes, expected: str) -> InvalidRequestError:
    shown = value[:80].decode("utf-8", "replace")
    return InvalidRequestError(f"{name} must be {expected}, got {shown!r}.", param=name)


_READERS: Final[dict[bytes, _Reader]] = {
    b"cf-aig-authorization": _raw("authorization"),
    b"cf-aig-cache-ttl": _whole("cache_ttl_s", MAX_TTL_S),
    b"cf-cache-ttl": _whole("cache_ttl_s", MAX_TTL_S),
    b"cf-aig-skip-cache": _flag("skip_cache"),
    b"cf-skip-cache": _flag("skip_cache"),
    b"cf-aig-cache-key": _raw("cache_key"),
    b"cf-aig-request-timeout": _whole("timeout_ms", 86_400_000),
    b"cf-aig-max-attempts": _whole("max_attempts", MAX_ATTEMPTS),
    b"cf-aig-retry-delay": _whole("retry_delay_ms", MAX_DELAY_MS),
    b"cf-aig-backoff": _backoff,
    b"cf-aig-metadata": _metadata,
    b"cf-aig-collect-log": _flag("collect_log"),
    b"cf-aig-collect-log-payload": _flag("collect_payload"),
    b"cf-aig-custom-cost": _cost,
    b"cf-aig-event-id": _text("event_id"),
    b"cf-aig-byok-alias": _text("byok_alias"),
    b"cf-aig-session-id": _text("session_id"),
    b"cf-aig-gateway-id": _text("gateway_id"),
    b"cf-aig-otel-trace-id": _hexadecimal("trace_id", 32),
    b"cf-aig-otel-parent-span-id": _hexadecimal("parent_span_id", 16),
}
