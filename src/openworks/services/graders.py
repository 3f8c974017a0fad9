"""Graders: each says of one answer whether it passes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, assert_never

import jsonschema
import orjson
import re2  # type: ignore[import-untyped]  # ships no types
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from openworks.core.errors import InvalidRequestError
from openworks.ports.calls import CallBodies
from openworks.services.answer_texts import answer_text
from openworks.wire.cloudflare.evaluations import (
    REQUEST_MARK,
    RESPONSE_MARK,
    GraderShape,
    JsonSchemaCheck,
    ModelGrader,
    Regex,
    StringCheck,
)

AskModel: TypeAlias = Callable[[str], Awaitable[str]]
"""Sends one prompt, and gives the text of the answer; raises `AppError`."""

_MAX_SHOWN_CHARS: Final = 8000
"""So much of a request or an answer is shown to a model; the embedded one has a small context."""
_NO_REFERENCES: Final[Registry[Any]] = Registry()
"""A schema stands for itself: nothing is fetched for it."""


class Grader(Protocol):
    """Judges one answer."""

    @property
    def asks_model(self) -> bool:
        """Whether it takes a model's time."""
        ...

    async def passes(self, bodies: CallBodies) -> bool:
        """Say whether an answer passes.

        Raises:
            AppError: It cannot be said now.
        """
        ...


@dataclass(frozen=True, slots=True)
class _TextGrader:
    """Judges by the answer's text alone."""

    test: Callable[[str], bool]
    asks_model: bool = False

    async def passes(self, bodies: CallBodies) -> bool:
        # On a thread: a long answer must not hold up the calls of this moment.
        return await asyncio.to_thread(self._test_answer, bodies.response)

    def _test_answer(self, response: bytes) -> bool:
        return self.test(answer_text(response))


@dataclass(frozen=True, slots=True)
class _AskingGrader:
    """Shows a model the question and the answer."""

    prompt: str
    pass_when: str
    ask: AskModel
    asks_model: bool = True

    async def passes(self, bodies: CallBodies) -> bool:
        request = bodies.request.decode("utf-8", "replace")[:_MAX_SHOWN_CHARS]
        response = answer_text(bodies.response)[:_MAX_SHOWN_CHARS]
        # Put in from the right, so that a mark inside one of them stays as it is.
        text = request.join(
            response.join(part.split(RESPONSE_MARK)) for part in self.prompt.split(REQUEST_MARK)
        )
        verdict = await self.ask(text)
        return verdict.strip().lstrip("\"'*` ").lower().startswith(self.pass_when.lower())


def make_grader(shape: GraderShape, ask: AskModel | None) -> Grader:
    """Return what a grader's description stands for.

    Raises:
        InvalidRequestError: Its pattern or schema is none, or there is no model to ask.
    """
    match shape:
        case StringCheck():
            return _TextGrader(_comparison(shape))
        case Regex():
            return _TextGrader(_pattern(shape))
        case JsonSchemaCheck():
            return _TextGrader(_schema(shape))
        case ModelGrader():
            if ask is None:
                raise InvalidRequestError("This server has no model that grades.", param="graders")
            return _AskingGrader(shape.prompt, shape.pass_when, ask)
        case _:
            assert_never(shape)


def check_graders(shapes: Sequence[GraderShape], ask: AskModel | None) -> None:
    """Return if all can be made.

    Raises:
        InvalidRequestError: One cannot.
    """
    for shape in shapes:
        make_grader(shape, ask)


def _comparison(shape: StringCheck) -> Callable[[str], bool]:
    reference, folded = shape.reference, shape.reference.lower()
    match shape.operation:
        case "eq":
            return lambda text: text == reference
        case "ne":
            return lambda text: text != reference
        case "like":
            return lambda text: reference in text
        case "ilike":
            return lambda text: folded in text.lower()
        case _:
            assert_never(shape.operation)


def _pattern(shape: Regex) -> Callable[[str], bool]:
    compiled = _compiled(shape.pattern, f"graders.{shape.id}.pattern")
    return lambda text: compiled.search(text) is not None


def _compiled(pattern: str, param: str) -> Any:
    """Compile with RE2, whose time is linear in the text whatever the expression."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as exc:
        raise InvalidRequestError(
            f"{param} is not a regular expression of RE2: {exc}.", param=param
        ) from exc


def _schema(shape: JsonSchemaCheck) -> Callable[[str], bool]:
    if shape.json_schema is None:
        return lambda text: _decoded(text) is not _NOTHING
    param = f"graders.{shape.id}.schema"
    base = jsonschema.validators.validator_for(
        shape.json_schema, default=jsonschema.Draft202012Validator
    )
    try:
        base.check_schema(shape.json_schema)
    except jsonschema.SchemaError as exc:
        raise InvalidRequestError(
            f"{param} is not a JSON Schema: {exc.message[:200]}.", param=param
        ) from exc
    _check_patterns(shape.json_schema, param)
    # Its types say nothing of what it returns.
    make: Any = extend(base, {"pattern": _match_pattern})  # type: ignore[no-untyped-call]
    validator: Validator = make(shape.json_schema, registry=_NO_REFERENCES)

    def test(text: str) -> bool:
        value = _decoded(text)
        try:
            return value is not _NOTHING and bool(validator.is_valid(value))
        except (Unresolvable, RecursionError):
            return False

    return test


def _check_patterns(schema: Any, param: str) -> None:
    """Refuse what RE2 cannot match; the library's own matching could take for ever."""
    if isinstance(schema, list):
        for item in schema:
            _check_patterns(item, param)
    elif isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            _compiled(schema["pattern"], f"{param}.pattern")
        if schema.get("patternProperties"):
            raise InvalidRequestError(
                f"{param}: 'patternProperties' is not supported.", param=param
            )
        for item in schema.values():
            _check_patterns(item, param)


def _match_pattern(
    validator: Validator, pattern: str, instance: Any, schema: Any
) -> Iterator[jsonschema.ValidationError]:
    if isinstance(instance, str) and not _compiled(pattern, "pattern").search(instance):
        yield jsonschema.ValidationError(f"{instance!r:.80} does not match {pattern!r}")


_NOTHING: Final = object()


def _decoded(text: str) -> Any:
    """Decode JSON, also where a model put it into a fenced block."""
    stripped = text.strip()
    if stripped.startswith("```"):
        stripped = stripped.strip("`").removeprefix("json").strip()
    try:
        return orjson.loads(stripped)
    except orjson.JSONDecodeError:
        return _NOTHING
