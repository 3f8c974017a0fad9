"""Request bodies meet the types of the `openai` package, and OpenAI's wording when they do not."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Annotated, Any, Literal, NotRequired, Required, TypeAlias, get_origin

import openai.types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.beta.assistant_update_params import AssistantUpdateParams
from openai.types.chat import ChatCompletionAssistantMessageParam
from openai.types.chat.completion_create_params import (
    CompletionCreateParams as ChatParams,
)
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming as WholeChatParams,
)
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsStreaming as StreamedChatParams,
)
from openai.types.chat.completion_update_params import CompletionUpdateParams
from openai.types.completion_create_params import CompletionCreateParams as TextParams
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.file_create_params import FileCreateParams
from openai.types.responses.response_create_params import ResponseCreateParams
from openai.types.vector_store_search_params import VectorStoreSearchParams
from typing_extensions import TypedDict, is_typeddict

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue
from openworks.wire.openai.validate import RequestValidator, describe_type

CHAT = RequestValidator(ChatParams, extra_fields={"top_k": int, "min_p": float | None})
TEXT = RequestValidator(TextParams)
EMBEDDINGS = RequestValidator(EmbeddingCreateParams)
RESPONSES = RequestValidator(ResponseCreateParams)
UPDATE = RequestValidator(CompletionUpdateParams)
SEARCH = RequestValidator(VectorStoreSearchParams)

ROLES = "'developer', 'system', 'user', 'assistant', 'tool'"


def chat(**fields: JsonValue) -> JsonObject:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


def after_hello(message: JsonValue) -> JsonObject:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}, message]}


def calling(*calls: JsonValue) -> JsonObject:
    return after_hello({"role": "assistant", "tool_calls": list(calls)})


def embed(value: JsonValue) -> JsonObject:
    return {"model": "m", "input": value}


def fails(validator: RequestValidator[Any], body: JsonValue) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        validator.check(body)
    return caught.value


# --- what is accepted ---


@pytest.mark.parametrize(
    "body",
    [
        chat(),
        chat(stream=True, stream_options={"include_usage": True}),
        chat(stream=False),
        chat(temperature=1, top_p=0.5, n=2, seed=-3, logit_bias={"50256": -100}),
        chat(stop="x"),
        chat(stop=["a", "b"]),
        chat(stop=[]),
        chat(top_k=40, min_p=0.05),
        chat(model="a-model-that-openai-has-never-heard-of"),
        chat(tool_choice="auto", tools=[{"type": "function", "function": {"name": "f"}}]),
        chat(tool_choice={"type": "function", "function": {"name": "f"}}),
        chat(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}),
        after_hello({"role": "assistant", "content": None, "refusal": None}),
        after_hello({"role": "assistant", "content": [{"type": "text", "text": "a"}]}),
        after_hello({"role": "tool", "tool_call_id": "c", "content": "42"}),
        calling({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}),
        calling({"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}),
        after_hello(
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "data:", "detail": "low"}},
                ],
            }
        ),
    ],
)
def test_valid_chat_bodies_come_back_as_the_same_object(body: JsonObject) -> None:
    assert CHAT.check(body) is body


@pytest.mark.parametrize("value", ["a", ["a", "b"], [1, 2], [[1], [2, 3]], [], [[]]])
def test_every_form_of_embedding_input_is_accepted(value: JsonValue) -> None:
    assert EMBEDDINGS.check(embed(value))["input"] == value


def test_completion_prompt_may_be_null_although_required() -> None:
    assert TEXT.check({"model": "m", "prompt": None})["prompt"] is None


def test_result_is_typed_by_the_shape() -> None:
    model: str = EMBEDDINGS.check(embed("a"))["model"]
    either: WholeChatParams | StreamedChatParams = CHAT.check(chat())
    assert (model, either["model"]) == ("m", "m")


def test_object_typed_fields_admit_any_json() -> None:
    parameters: JsonValue = {"type": ["object", None], "x": [1, {"y": 2.5}]}
    function: JsonValue = {"name": "f", "parameters": parameters}
    CHAT.check(chat(tools=[{"type": "function", "function": function}]))


def test_file_fields_admit_what_is_not_json() -> None:
    body: Any = {"file": object(), "purpose": "batch"}
    assert RequestValidator(FileCreateParams).check(body)["purpose"] == "batch"


# --- what is refused, over the real types ---


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"model": "m"}, "messages", "Missing required parameter: 'messages'."),
        (
            {"messages": []},
            "model",
            "Missing required parameter: 'model'.",
        ),
        (
            after_hello({"role": "user"}),
            "messages[1].content",
            "Missing required parameter: 'messages[1].content'.",
        ),
        (
            after_hello({"content": "x"}),
            "messages[1].role",
            "Missing required parameter: 'messages[1].role'.",
        ),
        (
            calling({"id": "c", "type": "function", "function": {"arguments": "{}"}}),
            "messages[1].tool_calls[0].function.name",
            "Missing required parameter: 'messages[1].tool_calls[0].function.name'.",
        ),
        (
            calling({"id": "c", "function": {"name": "f", "arguments": "{}"}}),
            "messages[1].tool_calls[0].type",
            "Missing required parameter: 'messages[1].tool_calls[0].type'.",
        ),
        (
            after_hello({"role": "assistant", "content": [{"type": "text"}]}),
            "messages[1].content[0].text",
            "Missing required parameter: 'messages[1].content[0].text'.",
        ),
        (
            chat(response_format={"type": "json_schema", "json_schema": {}}),
            "response_format.json_schema.name",
            "Missing required parameter: 'response_format.json_schema.name'.",
        ),
    ],
)
def test_missing_parameter_is_named(body: JsonObject, param: str, message: str) -> None:
    error = fails(CHAT, body)
    assert (error.code, error.param, error.message) == (
        "missing_required_parameter",
        param,
        message,
    )


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (
            chat(max_token=1),
            "max_token",
            "Unknown parameter: 'max_token'. Did you mean 'max_tokens'?",
        ),
        (chat(zzzzzz=1), "zzzzzz", "Unknown parameter: 'zzzzzz'."),
        (chat(topk=1), "topk", "Unknown parameter: 'topk'. Did you mean 'top_k'?"),
        (
            after_hello({"role": "user", "content": "x", "foo": 1}),
            "messages[1].foo",
            "Unknown parameter: 'messages[1].foo'.",
        ),
        (
            after_hello({"role": "user", "contnet": "x"}),
            "messages[1].contnet",
            "Unknown parameter: 'messages[1].contnet'. Did you mean 'messages[1].content'?",
        ),
        (chat(**{"q" * 70: 1}), "q" * 57 + "...", f"Unknown parameter: '{'q' * 57}...'."),
    ],
)
def test_unknown_parameter_is_refused(body: JsonObject, param: str, message: str) -> None:
    error = fails(CHAT, body)
    assert (error.code, error.param, error.message) == ("unknown_parameter", param, message)


@pytest.mark.parametrize(
    ("body", "param", "expected"),
    [
        (chat(temperature="warm"), "temperature", "a decimal, but got a string"),
        (chat(temperature=True), "temperature", "a decimal, but got a boolean"),
        (chat(n=1.0), "n", "an integer, but got a decimal"),
        (chat(n=True), "n", "an integer, but got a boolean"),
        (chat(top_k=0.5), "top_k", "an integer, but got a decimal"),
        (chat(store="yes"), "store", "a boolean, but got a string"),
        (chat(stream="yes"), "stream", "a boolean, but got a string"),
        (chat(stream=1), "stream", "a boolean, but got an integer"),
        (chat(stop=3), "stop", "one of a string or array of strings, but got an integer"),
        (chat(stop=["a", 1]), "stop[1]", "a string, but got an integer"),
        (chat(metadata={"a": 1}), "metadata.a", "a string, but got an integer"),
        (chat(logit_bias={"5": None}), "logit_bias.5", "an integer, but got null"),
        (chat(model=None), "model", "a string, but got null"),
        (chat(messages=None), "messages", "an array of objects, but got null"),
        (chat(messages="hi"), "messages", "an array of objects, but got a string"),
        (chat(messages=["hi"]), "messages[0]", "an object, but got a string"),
        (chat(modalities="text"), "modalities", "an array of strings, but got a string"),
        (chat(response_format="json"), "response_format", "an object, but got a string"),
        (
            chat(tool_choice=3),
            "tool_choice",
            "one of 'none', 'auto', 'required', or an object, but got an integer",
        ),
        (
            after_hello({"role": "assistant", "content": 5}),
            "messages[1].content",
            "one of a string or array of objects, but got an integer",
        ),
        (
            after_hello({"role": 5}),
            "messages[1].role",
            f"one of {ROLES}, or 'function', but got an integer",
        ),
        (
            calling({"id": "c", "type": None}),
            "messages[1].tool_calls[0].type",
            "one of 'function' or 'custom', but got null",
        ),
        (
            after_hello({"role": "assistant", "tool_calls": None}),
            "messages[1].tool_calls",
            "an array of objects, but got null",
        ),
    ],
)
def test_wrong_type_says_what_was_expected(body: JsonObject, param: str, expected: str) -> None:
    error = fails(CHAT, body)
    assert (error.code, error.param) == ("invalid_type", param)
    assert error.message == f"Invalid type for '{param}': expected {expected} instead."


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (
            chat(tool_choice="foo"),
            "tool_choice",
            "Invalid value: 'foo'. Supported values are: 'none', 'auto', and 'required'.",
        ),
        (
            chat(modalities=["text", "smell"]),
            "modalities[1]",
            "Invalid value: 'smell'. Supported values are: 'text' and 'audio'.",
        ),
        (
            chat(tools=[{"type": "hammer"}]),
            "tools[0].type",
            "Invalid value: 'hammer'. Supported values are: 'function' and 'custom'.",
        ),
        (
            after_hello({"role": "x" * 61}),
            "messages[1].role",
            f"Invalid value: '{'x' * 57}...'. Supported values are: {ROLES}, and 'function'.",
        ),
        (
            chat(prediction={"type": "x", "content": ""}),
            "prediction.type",
            "Invalid value: 'x'. Supported values are: 'content'.",
        ),
    ],
)
def test_unsupported_value_lists_the_supported(body: JsonObject, param: str, message: str) -> None:
    error = fails(CHAT, body)
    assert (error.code, error.param, error.message) == ("invalid_value", param, message)


def test_boolean_constant_is_not_its_integer() -> None:
    whole_only = RequestValidator(WholeChatParams)
    assert fails(whole_only, chat(stream=0)).code == "invalid_type"
    error = fails(whole_only, chat(stream=True))
    assert error.message == "Invalid value: true. Supported values are: false."


@pytest.mark.parametrize(
    ("value", "param", "expected"),
    [
        (["a", 1], "input[1]", "a string, but got an integer"),
        ([1, "a"], "input[1]", "an integer, but got a string"),
        ([[1], ["x"]], "input[1][0]", "an integer, but got a string"),
        ([[1], 2], "input[1]", "an array of integers, but got an integer"),
        ([True], "input[0]", "one of a string, integer, or array of integers, but got a boolean"),
        (
            7,
            "input",
            "one of a string, array of strings, array of integers, or array of arrays of "
            "integers, but got an integer",
        ),
    ],
)
def test_mixed_embedding_input_is_judged_by_its_first_element(
    value: JsonValue, param: str, expected: str
) -> None:
    error = fails(EMBEDDINGS, embed(value))
    assert error.message == f"Invalid type for '{param}': expected {expected} instead."
    assert (error.code, error.param) == ("invalid_type", param)


@pytest.mark.parametrize(
    ("body", "name"),
    [([], "an array"), ("x", "a string"), (None, "null"), (1, "an integer"), (True, "a boolean")],
)
def test_body_must_be_an_object(body: JsonValue, name: str) -> None:
    error = fails(CHAT, body)
    assert error.message == f"The request body must be a JSON object, got {name}."
    assert (error.code, error.param) == ("invalid_type", None)


# --- members of a union that share their tag ---


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "x"},
        {"type": "message", "role": "user", "status": "completed", "content": []},
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "content": [{"type": "output_text", "text": "a", "annotations": []}],
        },
        {"id": "msg_1"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
    ],
)
def test_response_items_are_told_apart(item: JsonValue) -> None:
    RESPONSES.check({"model": "m", "input": [item]})


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        ({"role": "user"}, "missing_required_parameter", "input[0].content"),
        ({"role": "tool", "content": "x"}, "invalid_value", "input[0].role"),
        ({"id": 5}, "invalid_type", "input[0].id"),
        ({"type": "function_call"}, "missing_required_parameter", "input[0].arguments"),
        ({"type": "zzz"}, "invalid_value", "input[0].type"),
        (
            {"role": "user", "content": [{"type": "input_text"}]},
            "missing_required_parameter",
            "input[0].content[0].text",
        ),
    ],
)
def test_faulty_response_item_is_judged_as_what_it_resembles(
    item: JsonValue, code: str, param: str
) -> None:
    error = fails(RESPONSES, {"model": "m", "input": [item]})
    assert (error.code, error.param) == (code, param)


# --- nulls, the server's own fields ---


def test_null_for_an_optional_top_level_field_is_absence() -> None:
    body = chat(user=None, temperature=None, stream=None, top_k=None)
    kept = CHAT.check(body)
    assert kept == chat()
    assert "user" in body


def test_null_survives_where_the_field_is_required_and_nullable() -> None:
    assert UPDATE.check({"metadata": None}) == {"metadata": None}


def test_null_survives_in_updates_where_the_type_allows_it() -> None:
    update = RequestValidator(AssistantUpdateParams, keep_nulls=True)
    body: JsonObject = {"description": None, "model": None}
    assert update.check(body) == {"description": None}


def test_null_under_an_unknown_name_is_still_unknown() -> None:
    assert fails(CHAT, chat(nonsense=None)).code == "unknown_parameter"


def test_extra_fields_are_optional_and_checked() -> None:
    CHAT.check(chat(top_k=1))
    error = fails(CHAT, chat(min_p="x"))
    assert (
        error.message == "Invalid type for 'min_p': expected a decimal, but got a string instead."
    )


def test_extra_fields_of_nested_types_are_admitted() -> None:
    body = after_hello({"role": "assistant", "content": "x", "annotations": []})
    assert fails(CHAT, body).param == "messages[1].annotations"
    lenient = RequestValidator(
        ChatParams,
        extra_fields_of={ChatCompletionAssistantMessageParam: {"annotations": list[object]}},
    )
    lenient.check(body)


# --- forms that the package uses rarely ---


class Renamed:
    """Stands for the package's `PropertyInfo`."""

    def __init__(self, alias: str) -> None:
        self.alias = alias


class Leaf(TypedDict, total=False):
    from_: Required[Annotated[str, Renamed("from")]]
    async_: Annotated[bool | None, Renamed("async")]


class Tree(TypedDict):
    children: NotRequired[list[Tree]]
    size: NotRequired[Literal[1, 2]]


class Loose(TypedDict):
    kind: str
    content: str


class Strict(TypedDict):
    kind: Literal["strict"]
    level: int


class Holder(TypedDict, total=False):
    leaf: Leaf
    tree: Tree
    either: Loose | Strict
    table: Strict | dict[str, int]
    size: Literal["auto"] | int
    numbers: str | bool | int | float


HOLDER = RequestValidator(Holder)


def test_alias_is_the_name_in_json() -> None:
    HOLDER.check({"leaf": {"from": "x", "async": None}})
    assert fails(HOLDER, {"leaf": {}}).param == "leaf.from"
    assert fails(HOLDER, {"leaf": {"from_": "x"}}).code == "unknown_parameter"


def test_total_decides_where_no_qualifier_does() -> None:
    assert fails(HOLDER, {"either": {"kind": "strict"}}).param in {
        "either.level",
        "either.content",
    }
    HOLDER.check({})


def test_member_with_an_open_tag_is_meant_by_any_value() -> None:
    HOLDER.check({"either": {"kind": "anything", "content": "x"}})
    HOLDER.check({"either": {"kind": "strict", "content": "x"}})
    HOLDER.check({"either": {"kind": "strict", "level": 1}})
    assert fails(HOLDER, {"either": {"kind": "strict", "level": "x"}}).param == "either.level"


def test_object_and_mapping_may_share_a_union() -> None:
    HOLDER.check({"table": {"kind": "strict", "level": 1}})
    HOLDER.check({"table": {"a": 1}})
    assert fails(HOLDER, {"table": {"a": "x"}}).param == "table.a"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"size": 1.5},
            "Invalid type for 'size': expected one of 'auto' or an integer, "
            "but got a decimal instead.",
        ),
        (
            {"numbers": []},
            "Invalid type for 'numbers': expected one of a string, boolean, or decimal, "
            "but got an array instead.",
        ),
        ({"tree": {"size": 3}}, "Invalid value: 3. Supported values are: 1 and 2."),
        (
            {"tree": {"size": True}},
            "Invalid type for 'tree.size': expected an integer, but got a boolean instead.",
        ),
    ],
)
def test_odd_unions_are_worded(body: JsonObject, message: str) -> None:
    assert fails(HOLDER, body).message == message


def tree_of(levels: int) -> JsonObject:
    tree: JsonObject = {}
    for _ in range(levels):
        tree = {"children": [tree]}
    return tree


def test_recursive_types_may_be_nested_to_a_limit() -> None:
    HOLDER.check({"tree": tree_of(62)})
    error = fails(HOLDER, {"tree": tree_of(63)})
    assert error.message == ("'tree' is nested too deeply: objects may be at most 64 levels deep.")
    assert (error.code, error.param) == ("invalid_value", "tree")


def test_depth_never_exhausts_the_stack() -> None:
    fails(HOLDER, {"tree": tree_of(20_000)})
    arrays: JsonValue = []
    for _ in range(20_000):
        arrays = [arrays]
    fails(EMBEDDINGS, embed(arrays))
    fails(CHAT, chat(stop=arrays))
    SEARCH.check({"query": "q", "filters": {"type": "and", "filters": [tree_of(20_000)]}})


@pytest.mark.parametrize("shape", [int, list[WholeChatParams], WholeChatParams | None])
def test_only_objects_can_be_request_bodies(shape: Any) -> None:
    with pytest.raises(TypeError, match="not a TypedDict"):
        RequestValidator(shape)


def test_annotation_without_a_json_form_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="No check is known"):
        RequestValidator(EmbeddingCreateParams, extra_fields={"when": complex})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("", "a string"),
        (1, "an integer"),
        (1.0, "a decimal"),
        (False, "a boolean"),
        ([], "an array"),
        ({}, "an object"),
        (None, "null"),
        (b"", "a value of type bytes"),
    ],
)
def test_types_are_described_as_json_has_them(value: object, name: str) -> None:
    assert describe_type(value) == name


# --- generality ---

PARAMS_MODULES = [
    module.name
    for module in pkgutil.walk_packages(openai.types.__path__, "openai.types.")
    if module.name.endswith("_params")
]


@pytest.mark.parametrize("module_name", PARAMS_MODULES)
def test_every_request_type_of_the_package_compiles(module_name: str) -> None:
    module = importlib.import_module(module_name)
    shapes = [
        shape
        for name, shape in vars(module).items()
        if name.endswith("Params") and (is_typeddict(shape) or get_origin(shape) is not None)
    ]
    for shape in shapes:
        validator = RequestValidator[Any](shape)
        assert fails(validator, []).code == "invalid_type"
        assert fails(validator, {"no such field": 1}).code in {
            "unknown_parameter",
            "missing_required_parameter",
        }


JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
TAGS = ["role", "type", "user", "assistant", "text", "function", "message", "image_url"]
FIELDS = ["model", "messages", "content", "tool_calls", "name", "arguments", "id", "input", "tools"]
NAMES = st.sampled_from(TAGS + FIELDS)
NEAR_JSON: st.SearchStrategy[JsonValue] = st.recursive(
    NAMES | st.none() | st.booleans() | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)


def refusal_of(validator: RequestValidator[Any], body: JsonValue) -> InvalidRequestError | None:
    try:
        validator.check(body)
    except InvalidRequestError as error:
        return error
    return None


@given(body=JSON | NEAR_JSON, content=NEAR_JSON)
def test_any_json_is_accepted_or_refused_with_one_error(
    body: JsonValue, content: JsonValue
) -> None:
    validators: list[RequestValidator[Any]] = [CHAT, TEXT, EMBEDDINGS, RESPONSES, SEARCH]
    for candidate in (body, chat(messages=content), {"model": "m", "input": content}):
        for validator in validators:
            refusal = refusal_of(validator, candidate)
            assert refusal is None or (refusal.code and refusal.message.endswith((".", "?")))


Body: TypeAlias = dict[str, Any]


def record(required: Body, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Body]:
    return st.fixed_dictionaries(required, optional=optional)


TEXTS = st.text(max_size=20)
TEXT_PARTS = record({"type": st.just("text"), "text": TEXTS})
IMAGE_PARTS = record(
    {
        "type": st.just("image_url"),
        "image_url": record({"url": TEXTS}, detail=st.sampled_from(["auto", "low", "high"])),
    }
)
CALLS = record(
    {
        "id": TEXTS,
        "type": st.just("function"),
        "function": record({"name": TEXTS, "arguments": TEXTS}),
    }
)
MESSAGES = st.one_of(
    record(
        {"role": st.sampled_from(["system", "developer"]), "content": TEXTS | st.lists(TEXT_PARTS)},
        name=TEXTS,
    ),
    record(
        {"role": st.just("user"), "content": TEXTS | st.lists(TEXT_PARTS | IMAGE_PARTS)}, name=TEXTS
    ),
    record(
        {"role": st.just("assistant")},
        content=TEXTS | st.lists(TEXT_PARTS) | st.none(),
        refusal=TEXTS | st.none(),
        tool_calls=st.lists(CALLS),
    ),
    record({"role": st.just("tool"), "tool_call_id": TEXTS, "content": TEXTS}),
)
CHAT_BODIES = record(
    {"model": TEXTS, "messages": st.lists(MESSAGES, max_size=5)},
    temperature=st.floats(0, 2) | st.integers(0, 2),
    n=st.integers(1, 8),
    stream=st.booleans(),
    stop=TEXTS | st.lists(TEXTS, max_size=4),
    logit_bias=st.dictionaries(TEXTS, st.integers(-100, 100)),
    metadata=st.dictionaries(TEXTS, TEXTS),
    reasoning_effort=st.sampled_from(["low", "medium", "high"]),
    tools=st.lists(
        record(
            {
                "type": st.just("function"),
                "function": record(
                    {"name": TEXTS}, parameters=st.dictionaries(TEXTS, JSON), strict=st.booleans()
                ),
            }
        ),
        max_size=2,
    ),
    top_k=st.integers(),
)


@given(body=CHAT_BODIES)
def test_well_formed_chat_bodies_pass_unchanged(body: Any) -> None:
    before = repr(body)
    assert CHAT.check(body) is body
    assert repr(body) == before
