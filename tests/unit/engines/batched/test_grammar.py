from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, cast

import jsonschema
import pytest

pytest.importorskip("llguidance")

import numpy as np

from openworks.core.errors import InternalError, InvalidRequestError, UnsupportedParameterError
from openworks.core.json import JsonObject, JsonValue
from openworks.engines.batched.grammar import GrammarCompiler, Matcher
from openworks.engines.batched.grammar_schema import check_schema
from openworks.engines.batched.tokenizer import Tokenizer
from tests.unit.engines.batched.vocabularies import TINY_CHAT, sentence_piece, words

TINY = Tokenizer.load(TINY_CHAT)
EOS = 2
PARAM = "response_format.json_schema.schema"
CLOSING = frozenset('"}],:12')
"""Letters that bring a random answer to its end."""


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(TINY)


def allowed(matcher: Matcher) -> list[int]:
    bits = np.unpackbits(matcher.mask().view(np.uint8), bitorder="little")
    return np.flatnonzero(bits).tolist()


def accepts(matcher: Matcher, text: str) -> bool:
    """Whether `text` is an answer from its first token to its last."""
    for token in TINY.encode(text, add_bos=False):
        if token not in allowed(matcher):
            return False
        matcher.accept(token)
    return matcher.can_end


def random_answer(matcher: Matcher, random: Random, *, max_tokens: int = 200) -> str | None:
    """Any answer that the masks let through; None if it did not come to an end."""
    said = b""
    for _ in range(max_tokens):
        tokens = [token for token in allowed(matcher) if token not in TINY.eos_ids]
        if matcher.is_stopped or not tokens or (matcher.can_end and random.random() < 0.3):
            return said.decode()
        closing = [token for token in tokens if set(TINY.token_text(token)) <= CLOSING]
        token = random.choice(closing if closing and random.random() < 0.7 else tokens)
        matcher.accept(token)
        said += TINY.token_bytes(token)
    return None


ENFORCED: list[JsonObject] = [
    {"type": "object"},
    {"type": "integer", "minimum": -3, "exclusiveMaximum": 120},
    {"type": "number", "exclusiveMinimum": -1.5, "maximum": 2.25, "multipleOf": 0.25},
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": "string", "pattern": "^[a-c]+$", "maxLength": 4},
    {"type": "string", "pattern": r"^\d{3}\.$"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"enum": ["a", 1, None, {"b": [2.5]}]},
    {"const": {"a": [1, "x"]}},
    {"type": ["string", "null"], "maxLength": 2},
    {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 3},
    {"type": "array", "prefixItems": [{"type": "null"}, {"const": 1}], "items": False},
    {"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2},
    {"type": "object", "patternProperties": {"^x": {"const": 1}}, "additionalProperties": False},
    {"type": "object", "properties": {"b": {"const": 1}}, "required": ["a"]},
    {
        "$defs": {"Node": {"properties": {"next": {"$ref": "#/$defs/Node"}}, "type": "object"}},
        "$ref": "#/$defs/Node",
    },
    {
        "allOf": [
            {"properties": {"a": {"const": 1}}, "required": ["a"]},
            {"properties": {"b": {"type": "null"}}, "required": ["b"]},
        ],
        "type": "object",
    },
    {
        "type": "object",
        "properties": {"a": {"const": 1}, "b": {"const": 2}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    {
        "oneOf": [
            {"type": "object", "properties": {"k": {"const": "x"}}, "required": ["k"]},
            {"type": "object", "properties": {"k": {"const": "y"}}, "required": ["k"]},
        ]
    },
]


@pytest.mark.parametrize("schema", ENFORCED, ids=lambda schema: json.dumps(schema)[:60])
def test_whatever_the_model_wants_the_answer_fits_the_schema(
    compiler: GrammarCompiler, schema: JsonObject
) -> None:
    answers = [
        random_answer(compiler.json_schema(schema), Random(seed), max_tokens=100)
        for seed in range(12)
    ]
    complete = [json.loads(answer) for answer in answers if answer is not None]
    assert complete
    for answer in complete:
        jsonschema.validate(answer, schema)


def test_any_object_is_any_object_and_nothing_else(compiler: GrammarCompiler) -> None:
    assert accepts(compiler.json_object(), '{"a": [1, {"b": null}], "c": "d"}')
    assert accepts(compiler.json_object(), "{}")
    assert not accepts(compiler.json_object(), "[1]")
    assert not accepts(compiler.json_object(), '{"a": 1')


def test_no_special_token_is_part_of_an_answer(compiler: GrammarCompiler) -> None:
    matcher = compiler.json_schema({"type": "string"})
    matcher.accept(TINY.encode('"', add_bos=False)[0])
    assert not set(TINY.added_ids.values()) & set(allowed(matcher))


def test_an_answer_may_end_when_it_is_complete_and_not_before(compiler: GrammarCompiler) -> None:
    matcher = compiler.json_schema({"type": "integer"})
    assert EOS not in allowed(matcher)
    assert not matcher.can_end
    matcher.accept(TINY.encode("1", add_bos=False)[0])
    assert set(TINY.eos_ids) <= set(allowed(matcher))
    assert matcher.can_end
    assert not matcher.is_stopped
    matcher.accept(EOS)
    assert matcher.is_stopped


def test_an_answer_that_cannot_go_on_is_over_without_a_token_of_its_end(
    compiler: GrammarCompiler,
) -> None:
    matcher = compiler.json_schema({"const": "a"})
    assert accepts(matcher, '"a"')
    assert matcher.is_stopped
    assert set(allowed(matcher)) == set(TINY.eos_ids)


def test_what_must_come_is_known_before_the_model_says_it(compiler: GrammarCompiler) -> None:
    matcher = compiler.json_schema({"const": "aaaa"})
    forced = matcher.forced_tokens()
    assert forced
    for token in forced:
        assert token in allowed(matcher)
        matcher.accept(token)


def test_copies_go_their_own_ways(compiler: GrammarCompiler) -> None:
    matcher = compiler.json_schema({"enum": ["a", "b"]})
    (quote,), (a,), (b,) = (TINY.encode(text, add_bos=False) for text in '"ab')
    matcher.accept(quote)
    other = matcher.copy()
    matcher.accept(a)
    other.accept(b)
    assert accepts(matcher, '"')
    assert accepts(other, '"')
    assert accepts(compiler.json_schema({"enum": ["a", "b"]}), '"b"')  # the kept one is as new


def test_a_grammar_that_went_is_compiled_again() -> None:
    compiler = GrammarCompiler(TINY, max_grammars=1)
    for _ in range(2):
        assert accepts(compiler.json_schema({"const": "a"}), '"a"')
        assert accepts(compiler.json_schema({"const": "b"}), '"b"')


def test_a_grammar_in_lark_may_name_tokens(compiler: GrammarCompiler) -> None:
    matcher = compiler.lark('start: <[1022]> "a" <[1023]>', param="tools")
    assert accepts(matcher, "<tool_call>a</tool_call>")


def test_a_vocabulary_of_byte_tokens_takes_grammars() -> None:
    tokenizer = Tokenizer(sentence_piece("keep"), configs=[{"eos_token": "</s>"}])
    matcher = GrammarCompiler(tokenizer).lark('start: " ab é\\n"', param="tools")
    for token in tokenizer.encode("ab é\n", add_bos=False):
        assert token in allowed(matcher)
        matcher.accept(token)
    assert matcher.can_end


def test_a_token_that_is_not_allowed_is_our_own_fault(compiler: GrammarCompiler) -> None:
    matcher = compiler.json_object()
    with pytest.raises(InternalError, match="Token 5 "):
        matcher.accept(5)


def test_a_vocabulary_without_grammars_says_so_when_one_is_wanted() -> None:
    compiler = GrammarCompiler(Tokenizer(words({"a": 0}, decoder="Fuse")))
    with pytest.raises(UnsupportedParameterError) as caught:
        compiler.json_object()
    assert caught.value.param == "response_format"


def chain(length: int, link: Callable[[str], JsonObject]) -> JsonObject:
    defs = {f"a{at}": link(f"#/$defs/a{at + 1}") for at in range(length)}
    return {"$defs": {**defs, f"a{length}": {"type": "null"}}, "$ref": "#/$defs/a0"}


def nested(depth: int, keyword: str) -> JsonObject:
    schema: JsonObject = {"type": "string"}
    for _ in range(depth):
        schema = {keyword: schema if keyword == "items" else [schema]}
    return schema


UNENFORCED: list[tuple[JsonValue, str, str]] = [
    ({"not": {}}, "", "'not'"),
    ({"if": {}}, "", "'if'"),
    ({"properties": {"a": {"uniqueItems": True}}}, ".properties.a", "uniqueItems"),
    ({"anyOf": [{"contains": {}}]}, ".anyOf[0]", "contains"),
    ({"minProperties": 2}, "", "minProperties"),
    ({"items": {"nullable": True}}, ".items", "nullable"),
    ({"typo": "string"}, "", "typo"),
    ({"x-guidance": {"lenient": True}, "not": {}}, "", "x-guidance"),
    ({"$defs": {"A": {"dependentRequired": {}}}}, ".$defs.A", "dependentRequired"),
    ({"prefixItems": [{"$id": "a"}]}, ".prefixItems[0]", "$id"),
    ({"type": "string", "format": "unknown"}, "", "unknown"),
    ({"type": "string", "format": "postcode"}, "", "postcode"),
    ({"type": "string", "pattern": "(?=a)"}, "", "look-around"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "", "oneOf"),
    ({"$ref": "https://example.com/schema"}, "", "example.com"),
    ({"$ref": "#/$defs/A"}, "", "leads to no schema"),
    ({"$ref": "#"}, "", "nothing fits it"),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "", "greater than maximum"),
    ({"enum": []}, "", "empty"),
    ({"type": "text"}, "", "text"),
    ({"properties": {"a": 5}}, ".properties.a", "must be an object"),
    ({"const": 2**63}, "", "integer"),
    ({"const": float("inf")}, "", "number inf"),
    (5, "", "must be an object"),
    (True, "", "must be an object"),
    ({"properties": {"a" * 300: {}}}, "", "256 characters"),
    ({"enum": list(range(30_000))}, "", "20000 values"),
    (nested(60, "anyOf"), "", "deep"),
    (nested(300, "items"), "", "deep"),
    (chain(2000, lambda ref: {"type": "array", "items": {"$ref": ref}}), "", "refer to each"),
    (chain(1000, lambda ref: {"properties": {"a": {"$ref": ref}}}), "", "refer to each"),
    ({"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}, "", "multipleOf"),
]


@pytest.mark.parametrize(
    ("schema", "place", "reason"), UNENFORCED, ids=lambda value: str(value)[:40]
)
def test_what_is_not_enforced_is_refused_by_name_and_place(
    compiler: GrammarCompiler, schema: JsonValue, place: str, reason: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        compiler.json_schema(cast("JsonObject", schema))
    assert caught.value.param == PARAM + place
    assert caught.value.code == "invalid_json_schema"
    assert reason in caught.value.message


@pytest.mark.parametrize(
    "link",
    [
        lambda ref: {"type": "array", "items": {"$ref": ref}},
        lambda ref: {"anyOf": [{"$ref": ref}, {"type": "null"}]},
        lambda ref: {"type": "object", "properties": {"a": {"$ref": ref}}},
    ],
)
def test_as_many_references_as_are_taken_are_followed(
    compiler: GrammarCompiler, link: Callable[[str], JsonObject]
) -> None:
    assert allowed(compiler.json_schema(chain(120, link)))


def test_a_grammar_that_becomes_too_much_fails_its_own_answer_only(
    compiler: GrammarCompiler,
) -> None:
    cases: list[JsonValue] = [
        {"type": "object", "properties": {"k": {"const": str(at)}}, "required": ["k"]}
        for at in range(2100)
    ]
    matcher = compiler.json_schema({"anyOf": cases}, param="tools[0].function.parameters")
    neighbour = compiler.json_schema({"anyOf": cases})
    with pytest.raises(InvalidRequestError) as caught:
        accepts(matcher, '{"k": "7"}')
    assert caught.value.param == "tools[0].function.parameters"
    assert allowed(neighbour)
    assert accepts(compiler.json_object(), "{}")


def test_a_text_that_is_no_grammar_is_refused(compiler: GrammarCompiler) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        compiler.lark("start: (", param="tools")
    assert caught.value.param == "tools"
    assert "\n" not in caught.value.message


def closed(schema: JsonObject) -> Any:
    return check_schema(schema, PARAM)


def test_objects_get_no_properties_that_were_not_declared(compiler: GrammarCompiler) -> None:
    schema: JsonObject = {"properties": {"a": {"const": 1}}, "type": "object"}
    assert accepts(compiler.json_schema(schema), '{"a": 1}')
    assert not accepts(compiler.json_schema(schema), '{"a": 1, "b": 2}')
    assert "additionalProperties" not in schema  # the caller's own stays as it is


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"properties": {"a": {}}, "additionalProperties": {"type": "null"}},
        {"properties": {"a": {}}, "patternProperties": {"b": {}}},
        {"properties": {"a": {}}, "required": ["b"]},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
        {"properties": {"a": {}}, "anyOf": [{"required": ["b"]}, {}]},
        {"$ref": "#/$defs/A", "required": ["b"], "$defs": {"A": {"properties": {"a": {}}}}},
    ],
)
def test_objects_stay_open_where_closing_them_would_shut_something_out(schema: JsonObject) -> None:
    assert closed(schema) == schema


def test_objects_in_definitions_and_cases_are_closed_too() -> None:
    inner: JsonObject = {"properties": {"a": {}}}
    schema = closed({"$defs": {"A": inner}, "anyOf": [inner, {"$ref": "#/$defs/A"}]})
    assert schema["$defs"]["A"]["additionalProperties"] is False
    assert schema["anyOf"][0]["additionalProperties"] is False


def test_what_is_not_strict_may_hold_what_is_not_enforced_but_not_too_much() -> None:
    path = "tools[3].function.parameters"
    loose: JsonObject = {"properties": {"a": {"not": {}, "x-guidance": 1}}, "if": {}}
    assert check_schema(loose, path, strict=False) == loose
    with pytest.raises(InvalidRequestError) as caught:
        check_schema({"enum": list(range(30_000))}, path, strict=False)
    assert caught.value.param == path
