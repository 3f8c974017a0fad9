"""From the path behind `/gateway/v1/{account}/{gateway}/{provider}/` to the provider's own path.

The host never comes from a caller's text: it is the provider's, or is put together from labels that
were checked. What remains is kept under the provider's base path.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

from openworks.core.errors import InvalidRequestError
from openworks.gateway.providers.base import Provider, Route
from openworks.ports.upstream import Origin

MAX_ENDPOINT_CHARS = 2048
_CACHED_ROUTES = 4096  # callers choose the paths, so there is a bound; the oldest are made anew

_ALLOWED = re.compile(r"(?:[A-Za-z0-9._~@:!$&'()*+,;=/-]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(rb"[!-\"$-~]*")  # printable ASCII without `#`
_VERSION = re.compile(r"v\d+[a-z0-9]*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
_ACCOUNT = re.compile(r"[A-Za-z0-9_-]{1,64}")

_BEDROCK_SERVICES = {
    "bedrock-runtime": "bedrock",
    "bedrock": "bedrock",
    "bedrock-agent-runtime": "bedrock",
    "bedrock-mantle": "bedrock-mantle",
}
"""The host's first label → the name that signatures use."""


def check_endpoint(endpoint: str) -> str:
    """Return a path without its first slash.

    Raises:
        InvalidRequestError: It could mean another place to some server: `..`, `//`, encoded dots or
            backslashes, characters that no path has.
    """
    path = endpoint.removeprefix("/")
    if len(path) > MAX_ENDPOINT_CHARS:
        raise _refused(path, f"it is longer than {MAX_ENDPOINT_CHARS} characters")
    if not _ALLOWED.fullmatch(path):
        raise _refused(path, "it holds characters that no path has")
    decoded = unquote(path) if "%" in path else path
    if "%" in decoded:
        raise _refused(path, "it is encoded twice")
    if any(char < " " or char in "\\\x7f?#" for char in decoded):
        raise _refused(path, "it holds encoded control characters")
    steps = decoded.split("/")
    if "." in steps or ".." in steps:
        raise _refused(path, "it leaves the provider's path")
    if "" in steps[:-1]:
        raise _refused(path, "it has an empty segment")
    return path


def check_query(query: bytes) -> None:
    """Refuse a query that could end the request line."""
    if not _QUERY.fullmatch(query):
        raise InvalidRequestError(
            "The query holds characters that no query has.", code="invalid_path"
        )


@lru_cache(maxsize=_CACHED_ROUTES)
def resolve(provider: Provider, endpoint: str, account_id: str = "") -> Route:
    """Say where an endpoint is.

    Args:
        provider: Whose it is.
        endpoint: The path after the provider's slug, as it stood in the URL (still encoded).
        account_id: Cloudflare's account, for `workers-ai` only.

    Raises:
        InvalidRequestError: The path is hostile, or lacks what the provider's paths need.
    """
    path = check_endpoint(endpoint)
    match provider.layout:
        case "azure":
            return _azure(provider, path)
        case "bedrock":
            return _bedrock(provider, path)
        case "vertex":
            return _vertex(provider, path)
        case "workers-ai":
            return _plain(provider, _workers_ai(path, account_id))
        case "huggingface":
            return _plain(provider, _huggingface(path))
        case "plain":
            return _plain(provider, path)


def _plain(provider: Provider, path: str) -> Route:
    assert provider.origin is not None  # only the layouts above go without one
    base = provider.base_path
    if provider.version:
        if base and f"/{path}".startswith(f"{base}/"):
            path = path[len(base) :]  # SDKs that know the whole path write it whole
        first, _, rest = path.partition("/")
        if not _begins_with_version(path):
            path = f"{provider.version}/{path}"
        elif first == provider.version and _VERSION.fullmatch(rest.partition("/")[0]):
            path = rest  # a base URL that ends in `/v1`, and an SDK that adds its own
    return Route(origin=provider.origin, path=f"{base}/{path}".encode())


def _begins_with_version(path: str) -> bool:
    first, _, rest = path.partition("/")
    # Cohere keeps OpenAI's API under `compatibility/v1`.
    return bool(
        _VERSION.fullmatch(first)
        or (first == "compatibility" and _VERSION.fullmatch(rest.partition("/")[0]))
    )


def _workers_ai(path: str, account_id: str) -> str:
    if not _ACCOUNT.fullmatch(account_id):
        raise InvalidRequestError(
            "Cloudflare's Workers AI needs a stored credential with its account id.",
            code="credential_incomplete",
        )
    if path.startswith("@"):
        path = f"run/{path}"
    return f"{account_id}/ai/{path}"


def _huggingface(path: str) -> str:
    if path.startswith(("v1/", "hf-inference/")):
        return path
    return f"hf-inference/models/{path.removeprefix('models/')}"


def _azure(provider: Provider, path: str) -> Route:
    resource, _, rest = path.partition("/")
    host = f"{_label(resource, path, 'resource')}.openai.azure.com"
    deployment, _, action = rest.partition("/")
    if not action:
        raise _refused(path, "an Azure path is {resource}/{deployment}/{endpoint}")
    native = rest if deployment == "openai" else f"openai/deployments/{rest}"
    return _at(provider, host, f"/{native}")


def _bedrock(provider: Provider, path: str) -> Route:
    service, _, rest = path.partition("/")
    region, _, native = rest.partition("/")
    if service not in _BEDROCK_SERVICES or not native:
        raise _refused(path, "a Bedrock path is bedrock-runtime/{region}/model/{model}/invoke")
    region = _label(region, path, "region")
    domain = "amazonaws.com"
    if service == "bedrock-mantle":
        domain = "api.aws"
    elif region.startswith("cn-"):
        domain = "amazonaws.com.cn"
    host = f"{service}.{region}.{domain}"
    route = _at(provider, host, f"/{native}")
    return Route(
        origin=route.origin, path=route.path, service=_BEDROCK_SERVICES[service], region=region
    )


def _vertex(provider: Provider, path: str) -> Route:
    version, _, rest = path.partition("/")
    if not _VERSION.fullmatch(version) or not rest:
        raise _refused(path, "a Vertex path is v1/projects/{project}/locations/{region}/...")
    steps = rest.split("/")
    region = "global"
    if steps[0] == "projects":
        if len(steps) < 4 or steps[2] != "locations":
            raise _refused(path, "a Vertex path is v1/projects/{project}/locations/{region}/...")
        region = _label(steps[3], path, "region")
    if region == "global":
        host = "aiplatform.googleapis.com"
    elif region in ("us", "eu"):
        host = f"aiplatform.{region}.rep.googleapis.com"
    else:
        host = f"{region}-aiplatform.googleapis.com"
    return _at(provider, host, f"/{path}")


def _at(provider: Provider, host: str, path: str) -> Route:
    """The route on the host that the path named, unless the settings put one in its place."""
    origin = provider.origin or Origin(scheme="https", host=host, port=443)
    return Route(origin=origin, path=f"{provider.base_path}{path}".encode())


def _label(text: str, path: str, what: str) -> str:
    if not _LABEL.fullmatch(text):
        raise _refused(path, f"its {what} '{text[:64]}' is not a DNS label")
    return text.lower()


def _refused(path: str, reason: str) -> InvalidRequestError:
    shown = ascii(path[:200])[1:-1]
    return InvalidRequestError(f"The path '{shown}' cannot be used: {reason}.", code="invalid_path")
