"""`run`: one body for every model, `{model, input, provider?}`, and one shape of answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Protocol
from urllib.parse import quote

import orjson

from openworks.api.context import Services
from openworks.api.gateway.naming import DYNAMIC, gateway_name
from openworks.core.errors import AppError, InvalidRequestError, MethodNotAllowedError
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.messages import JSON_HEADER, GatewayAnswer, GatewayRequest
from openworks.gateway.plane import refusal
from openworks.gateway.steps import read_object
from openworks.ports.calls import LOCAL_PROVIDER
from openworks.ports.upstream import Headers
from openworks.services.catalog import Catalog
from openworks.wire.cloudflare.gateway_errors import number_of

RUN: Final = "run"
_BLOCKED_STATUS: Final = 422
_BLOCKED_NUMBER: Final = 2017
"""What `run` says of a blocked prompt or answer, where other endpoints say 424."""
_ANTHROPIC: Final = "anthropic"


class Pending(Protocol):
    """A call whose answer must be waited for."""

    async def run(self) -> GatewayAnswer:
        """Return the answer; cancelling it ends the call."""
        ...

    def abandon(self) -> None:
        """End a call that was never run."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTarget:
    """Where an input goes."""

    provider: str
    """Of the path: a slug, or `compat`."""
    endpoint: str
    body: bytes
    slug: str
    model: str
    """As the provider knows it."""

    @property
    def is_local_run(self) -> bool:
        """Whether the answer is Workers AI's envelope."""
        return self.slug == LOCAL_PROVIDER


def read_target(
    model: JsonValue, fields: JsonValue, catalog: Catalog, provider: JsonValue = None
) -> RunTarget:
    """Say where an input goes, by the model's name and the input's own shape.

    Raises:
        InvalidRequestError: The model or the input has no sense.
    """
    if not isinstance(model, str) or not model:
        raise InvalidRequestError(
            f"model must be @cf/... or author/model, got {model!r:.80}.", param="model"
        )
    if not isinstance(fields, dict):
        raise InvalidRequestError(
            f"input must be an object in the model's own schema, got {fields!r:.80}.", param="input"
        )
    if isinstance(provider, str) and provider:
        slug, name = provider, model.removeprefix(f"{provider}/")
    else:
        slug, name = gateway_name(model, catalog)
    if slug == LOCAL_PROVIDER:
        endpoint = f"run/{quote(name, safe='@/')}"
        return RunTarget(
            provider=slug, endpoint=endpoint, body=orjson.dumps(fields), slug=slug, model=name
        )
    return _remote(slug, name, fields)


def _remote(slug: str, name: str, fields: JsonObject) -> RunTarget:
    if slug == _ANTHROPIC:
        return _target(slug, "v1/messages", slug, name, {**fields, "model": name})
    qualified: JsonObject = {**fields, "model": f"{slug}/{name}"}
    if "messages" in fields:
        return _target("compat", "chat/completions", slug, name, qualified)
    if "prompt" in fields:
        prompt = qualified.pop("prompt")
        qualified["messages"] = [{"role": "user", "content": prompt}]
        return _target("compat", "chat/completions", slug, name, qualified)
    if "input" in fields and ("embed" in name or slug == DYNAMIC):
        return _target("compat", "embeddings", slug, name, qualified)
    if "input" in fields:
        return _target(slug, "responses", slug, name, {**fields, "model": name})
    raise InvalidRequestError(
        f"input for {slug}/{name:.120} must have messages, prompt or input.", param="input"
    )


def _target(provider: str, endpoint: str, slug: str, name: str, body: JsonObject) -> RunTarget:
    return RunTarget(
        provider=provider, endpoint=endpoint, body=orjson.dumps(body), slug=slug, model=name
    )


def result_of(target: RunTarget, body: bytes) -> JsonValue:
    """Return what a good answer says, without Workers AI's envelope."""
    said: JsonValue = orjson.loads(body)
    if target.is_local_run and isinstance(said, dict) and "result" in said:
        return said["result"]
    return said


def failure_of(answer: GatewayAnswer) -> tuple[int, str | int | None, str]:
    """Return status, code and message of an answer that failed, whoever wrote it."""
    error = answer.error
    if error is not None:
        if error.status == 424:
            return _BLOCKED_STATUS, _BLOCKED_NUMBER, error.message
        return error.status, number_of(error), error.message
    code, message = _told(answer.body or b"")
    return answer.status, code, message or f"The provider answered {answer.status}."


def _told(body: bytes) -> tuple[str | int | None, str]:
    """Find code and message in a provider's error, which differ in where they put them."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None, body[:500].decode(errors="replace")
    if not isinstance(said, dict):
        return None, ""
    error = said.get("error") or said.get("errors") or said
    if isinstance(error, list):
        error = error[0] if error else {}
    if not isinstance(error, dict):
        return None, str(error)[:500]
    code = error.get("code") or error.get("type")
    return (code if isinstance(code, str | int) else None), str(error.get("message", ""))[:2000]


class Run:
    """A `run` on its way; an answer that streams passes as it is."""

    __slots__ = ("_begun", "_target")

    def __init__(self, target: RunTarget, begun: GatewayAnswer | Pending) -> None:
        self._target = target
        self._begun = begun

    async def run(self) -> GatewayAnswer:
        """Return the answer in the shape of `run`."""
        begun = self._begun
        answer = begun if isinstance(begun, GatewayAnswer) else await begun.run()
        target = self._target
        told: JsonObject
        if answer.status >= 400 and answer.body is not None:
            status, code, message = failure_of(answer)
            told = {"state": "Failed", "error": {"code": code or status, "message": message}}
            answer = replace(answer, status=status)
        elif answer.body is not None and is_json(answer.headers):
            told = {"state": "Completed", "result": result_of(target, answer.body)}
        else:
            return answer
        chosen = dict(answer.headers)  # by a dynamic route, which says so
        told["provider"] = chosen.get(b"cf-aig-provider", target.slug.encode()).decode()
        told["model"] = chosen.get(b"cf-aig-model", target.model.encode()).decode()
        headers = [JSON_HEADER, *(h for h in answer.headers if h[0] != b"content-type")]
        return replace(answer, headers=headers, body=orjson.dumps(told))

    def abandon(self) -> None:
        """End a call that was never run."""
        if not isinstance(self._begun, GatewayAnswer):
            self._begun.abandon()


def is_json(headers: Headers) -> bool:
    """Whether an answer says that it is JSON."""
    return any(
        name == b"content-type" and value.startswith(b"application/json") for name, value in headers
    )


def begin_run(services: Services, request: GatewayRequest) -> GatewayAnswer | Pending:
    """Begin `POST .../run`; never raises."""
    try:
        if request.method != b"POST":
            raise MethodNotAllowedError("run takes POST alone.")
        given = read_object(request.body)
        target = read_target(
            given.get("model"), given.get("input"), services.catalog, given.get("provider")
        )
    except AppError as error:
        return refusal(error)
    asked = replace(
        request, provider=target.provider, endpoint=target.endpoint, body=target.body, query=b""
    )
    return Run(target, services.plane.begin(asked))
