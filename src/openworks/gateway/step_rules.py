"""What a step may do, whatever its provider: go without a credential or a model, be cached."""

from __future__ import annotations

from openworks.core.errors import InvalidRequestError, PermissionDeniedError
from openworks.gateway.providers.base import AUTH_HEADERS
from openworks.gateway.providers.registry import CUSTOM_PREFIX
from openworks.gateway.steps import Step
from openworks.ports.calls import LOCAL_PROVIDER


def take_brought(step: Step) -> None:
    """Take the caller's own credential out of a step that must do without.

    Raises:
        InvalidRequestError: The provider cannot be asked without one.
    """
    slug = step.provider.slug
    if slug != LOCAL_PROVIDER and not slug.startswith(CUSTOM_PREFIX):
        raise InvalidRequestError(
            f"This gateway sends only stored credentials, and none is stored for {slug}.",
            code="unknown_byok_alias",
        )
    step.headers = [header for header in step.headers if header[0] not in AUTH_HEADERS]
    step.brought_credential = False


def check_nameless(step: Step) -> None:
    """Return if a request that names no model can do without: a look, or an upload.

    Raises:
        PermissionDeniedError: Its provider might find a model in it, or choose one.
    """
    body = step.body
    if step.method != b"POST" or not body or (body[:2] == b"--" and b"model" not in body):
        return
    raise PermissionDeniedError(
        "This key may use only some models, and this request does not say which one it is for.",
        code="model_not_allowed",
        param="model",
    )


def may_cache(step: Step) -> bool:
    """Whether an answer can stand for the next one: not where asking has an effect, or is a look
    at something that changes; without a model only if the caller asks for it."""
    options = step.options
    asked = options.cache_ttl_s is not None or options.cache_key is not None
    return step.method == b"POST" and (bool(step.peek.model) or asked)
