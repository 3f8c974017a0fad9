"""An evaluation as its owner writes it, and the graders that are ours."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from openworks.wire.cloudflare.fields import Name, Shape

_Id = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_Long = Annotated[str, StringConstraints(min_length=1, max_length=16_384)]

REQUEST_MARK = "{{request}}"
RESPONSE_MARK = "{{response}}"


class StringCheck(Shape):
    """Compares an answer's text with another."""

    id: Name
    type: Literal["string_check"]
    operation: Literal["eq", "ne", "like", "ilike"]
    reference: _Long


class Regex(Shape):
    """Looks for a regular expression (RE2) in an answer's text."""

    id: Name
    type: Literal["regex"]
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class JsonSchemaCheck(Shape):
    """Checks that an answer's text is JSON, and follows a schema if one is given."""

    id: Name
    type: Literal["json_schema"]
    json_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class ModelGrader(Shape):
    """Asks a model whether an answer is good."""

    id: Name
    type: Literal["model"]
    prompt: _Long
    pass_when: Annotated[str, StringConstraints(min_length=1, max_length=100)] = "yes"
    """What the model's answer begins with when all is well, whatever its case."""

    @model_validator(mode="after")
    def _shows_the_answer(self) -> Self:
        if RESPONSE_MARK not in self.prompt:
            raise ValueError(f"'prompt' must hold {RESPONSE_MARK}, where the answer is put in")
        return self


GraderShape: TypeAlias = Annotated[
    StringCheck | Regex | JsonSchemaCheck | ModelGrader, Field(discriminator="type")
]


class EvaluationShape(Shape):
    """Which logs are judged by what."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    dataset_ids: Annotated[list[_Id], Field(min_length=1, max_length=10)]
    evaluation_type_ids: Annotated[list[_Id], Field(max_length=20)]
    graders: Annotated[list[GraderShape], Field(max_length=20)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        ids = [grader.id for grader in self.graders]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"two of 'graders' have the id {name!r}")
        if not self.evaluation_type_ids and not self.graders:
            raise ValueError("expected at least one of 'evaluation_type_ids' and 'graders'")
        return self


class StoredGraders(Shape):
    """Graders as an evaluation keeps them."""

    graders: list[GraderShape]
