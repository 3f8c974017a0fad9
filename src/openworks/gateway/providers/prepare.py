"""From a caller's request to the one that the provider gets: its place, and who asks."""

from __future__ import annotations

from collections.abc import Mapping

from openworks.core.errors import InvalidRequestError
from openworks.gateway.providers.base import AUTH_HEADERS, Credential, Provider, Route
from openworks.gateway.providers.paths import check_query, resolve
from openworks.gateway.providers.sigv4 import sign
from openworks.ports.upstream import Headers, Origin, UpstreamRequest

_BEARER = b"Bearer "
_QUERY_SECRETS = (b"key=", b"api_key=", b"access_token=")
_HOP_BY_HOP = frozenset(
    {
        b"host",
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


def prepare(
    provider: Provider,
    *,
    method: bytes,
    endpoint: str,
    query: bytes,
    headers: Headers,
    body: bytes,
    credential: Credential | None,
    now: float,
) -> UpstreamRequest:
    """Make the request that goes out.

    Args:
        provider: Who is asked.
        method: The HTTP method.
        endpoint: The path after the provider's slug, still encoded.
        query: What follows `?`, still encoded.
        headers: The caller's, without hop-by-hop and `cf-aig-*` ones.
        body: Sent byte for byte.
        credential: The owner's; the caller's own is dropped then. A service account must have been
            to `GoogleTokens` first. None sends what the caller showed.
        now: Seconds since the epoch, for signatures.

    Raises:
        InvalidRequestError: The path or the query could reach another place, or lacks a part.
    """
    route = resolve(provider, endpoint, "" if credential is None else credential.account_id)
    if query:
        check_query(query)
    if credential is not None:
        headers = [header for header in headers if header[0] not in AUTH_HEADERS]
        headers.extend(credential.headers)
        query = _without_secrets(query) if query else query
        if credential.query:
            query = query + b"&" + credential.query if query else credential.query
    if provider.default_headers:
        headers = _with_defaults(provider, headers)
    if provider.layout == "bedrock":
        headers = _for_aws(route, method, query, headers, body, credential, now)
    return UpstreamRequest(
        origin=route.origin,
        method=method,
        target=route.path + b"?" + query if query else route.path,
        headers=headers,
        body=body,
    )


def headers_of(members: Mapping[str, str]) -> Headers:
    """The headers of a step of the universal endpoint, which stand in its JSON.

    Hop-by-hop and `cf-aig-*` ones are left out.

    Raises:
        InvalidRequestError: One could break out of its line.
    """
    found: Headers = []
    for name, value in members.items():
        lower = name.lower()
        if not lower.isascii() or not lower.replace("-", "").replace("_", "").isalnum():
            raise InvalidRequestError(f"The header name {name[:64]!a} is not one.", param="headers")
        # The value may be a secret, so the message has only the name.
        if any(char in value for char in "\r\n\0"):
            raise InvalidRequestError(
                f"The value of the header '{lower}' holds a line break.", param="headers"
            )
        key = lower.encode()
        if key not in _HOP_BY_HOP and not lower.startswith("cf-aig-"):
            found.append((key, value.encode()))
    return found


def host_header(origin: Origin) -> str:
    """What stands in the `host` header, and is signed for AWS."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    default_port = 443 if origin.scheme == "https" else 80
    return host if origin.port == default_port else f"{host}:{origin.port}"


def _with_defaults(provider: Provider, headers: Headers) -> Headers:
    names = {name for name, _ in headers}
    missing = [header for header in provider.default_headers if header[0] not in names]
    return [*headers, *missing] if missing else headers


def _without_secrets(query: bytes) -> bytes:
    if b"key=" not in query and b"token=" not in query:
        return query
    return b"&".join(part for part in query.split(b"&") if not part.startswith(_QUERY_SECRETS))


def _for_aws(
    route: Route,
    method: bytes,
    query: bytes,
    headers: Headers,
    body: bytes,
    credential: Credential | None,
    now_s: float,
) -> Headers:
    if credential is not None and credential.aws is not None:
        return sign(
            credential.aws,
            method=method,
            host=host_header(route.origin),
            path=route.path,
            query=query,
            headers=headers,
            body=body,
            region=route.region,
            service=route.service,
            now_s=now_s,
        )
    if route.service != "bedrock-mantle":
        return headers
    # A Bedrock API key is a bearer token everywhere but here.
    return [
        (b"x-api-key", value[len(_BEARER) :])
        if name == b"authorization" and value.startswith(_BEARER)
        else (name, value)
        for name, value in headers
    ]
