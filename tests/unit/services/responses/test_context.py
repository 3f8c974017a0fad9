"""Items become the messages that models' templates know."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.text import ChatRequest
from openworks.services.responses.chat import chat_request, without_oldest
from openworks.services.responses.context import ItemReader
from openworks.services.responses.items import check_calls
from openworks.services.responses.packed import pack, unpack
from tests.unit.services.responses.world import MINE, MemoryConverter, MemoryFiles, message

CALL: JsonObject = {
    "type": "function_call",
    "call_id": "call-1",
    "name": "add",
    "arguments": "{}",
    "status": "completed",
}
RESULT: JsonObject = {"type": "function_call_output", "call_id": "call-1", "output": "2"}
TOOL_CALL: JsonObject = {
    "id": "call-1",
    "type": "function",
    "function": {"name": "add", "arguments": "{}"},
}
PLAIN: JsonObject = {"parallel_tool_calls": True, "tools": [], "tool_choice": "auto"}
ADD: JsonObject = {"type": "function", "name": "add", "parameters": {}, "strict": None}
MUL: JsonObject = {"type": "function", "name": "mul", "parameters": {}, "strict": True}


def thinking(**fields: object) -> JsonObject:
    item: JsonObject = {"type": "reasoning", "summary": [], **fields}  # type: ignore[dict-item] # JSON
    return item


async def messages_of(
    *items: JsonObject, instructions: str | None = None, files: MemoryFiles | None = None
) -> list[JsonObject]:
    reader = ItemReader(files or MemoryFiles(), MemoryConverter())
    return await reader.messages(MINE, instructions, items)


async def test_what_a_model_thought_said_and_called_is_one_message() -> None:
    content = [{"type": "reasoning_text", "text": "Hm."}]

    found = await messages_of(
        message("1+1?"), thinking(content=content), message("Well:", "assistant"), CALL, RESULT
    )

    assert found == [
        {"role": "user", "content": "1+1?"},
        {
            "role": "assistant",
            "content": "Well:",
            "reasoning_content": "Hm.",
            "tool_calls": [TOOL_CALL],
        },
        {"role": "tool", "tool_call_id": "call-1", "content": "2"},
    ]


async def test_calls_of_two_turns_are_two_messages() -> None:
    found = await messages_of(message("?"), CALL, RESULT, CALL, RESULT)

    assert [each["role"] for each in found] == ["user", "assistant", "tool", "assistant", "tool"]


async def test_texts_of_the_system_that_follow_each_other_are_one() -> None:
    found = await messages_of(
        message("Be brief.", "developer"),
        message("Hello"),
        message("Be kind.", "system"),
        instructions="You are Anna.",
    )

    assert found == [
        {"role": "system", "content": "You are Anna.\n\nBe brief."},
        {"role": "user", "content": "Hello"},
        {"role": "system", "content": "Be kind."},
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"summary": [{"type": "summary_text", "text": "Hm."}]},
        {"encrypted_content": pack("Hm.")},
    ],
)
async def test_reasoning_is_read_in_each_of_its_forms(fields: dict[str, object]) -> None:
    _, said = await messages_of(message("?"), thinking(**fields), message("Yes.", "assistant"))

    assert said["reasoning_content"] == "Hm."


async def test_list_of_results_becomes_a_text() -> None:
    parts: list[JsonValue] = [{"type": "input_text", "text": text} for text in ("1", "2")]

    *_, found = await messages_of(CALL, {**RESULT, "output": parts})

    assert found["content"] == "1\n2"


async def test_picture_of_a_file_becomes_a_data_url() -> None:
    files = MemoryFiles()
    files.add("file-1", "image/png", b"PNG")
    part: JsonObject = {"type": "input_image", "file_id": "file-1", "detail": "low"}

    (found,) = await messages_of({**message(""), "content": [part]}, files=files)

    url = f"data:image/png;base64,{b64encode(b'PNG').decode()}"
    assert found["content"] == [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]


async def test_text_of_a_file_is_shown_with_its_name() -> None:
    files = MemoryFiles()
    files.add("file-1", "text/plain", "Grüße".encode())
    parts: list[JsonObject] = [
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_file", "file_data": b64encode(b"Hi").decode(), "filename": "hi.txt"},
        {"type": "input_text", "text": "What is this?"},
    ]

    (found,) = await messages_of({**message(""), "content": [*parts]}, files=files)

    assert found["content"] == [
        {"type": "text", "text": "The file file-1.txt:\nGrüße"},
        {"type": "text", "text": "The file hi.txt:\nHi"},
        {"type": "text", "text": "What is this?"},
    ]


async def test_document_is_shown_as_what_it_says() -> None:
    data = b64encode(b"%PDF-\xff").decode()
    part: JsonObject = {
        "type": "input_file",
        "file_data": f"data:application/pdf;base64,{data}",
        "filename": "a.pdf",
    }

    (found,) = await messages_of({**message(""), "content": [part]})

    assert found["content"] == "The file a.pdf:\n6 bytes"


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "input_image", "file_id": "file-1", "detail": "low"}, "not a picture"),
        ({"type": "input_file", "file_id": "file-1"}, "is a picture"),
        ({"type": "input_file", "file_id": "file-2"}, "no file found"),
    ],
)
async def test_file_that_cannot_be_shown_is_refused(part: JsonObject, reason: str) -> None:
    files = MemoryFiles()
    files.add("file-1", "application/pdf", b"\xff\xfe", filename="a.png")

    with pytest.raises(InvalidRequestError, match=reason):
        await messages_of({**message(""), "content": [part]}, files=files)


@given(st.text())
def test_packed_text_is_unpacked(text: str) -> None:
    assert unpack(pack(text)) == text


@given(st.text())
def test_what_others_packed_is_not_read(text: str) -> None:
    assert unpack(text) is None


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([RESULT], "input[0].call_id"),
        ([CALL], "input[0]"),
        ([CALL, RESULT, RESULT], "input[2].call_id"),
        ([RESULT, CALL], "input[0].call_id"),
    ],
)
def test_calls_and_results_that_do_not_fit_are_refused(items: list[JsonObject], param: str) -> None:
    with pytest.raises(InvalidRequestError, match="call-1") as caught:
        check_calls([], items, "input")

    assert caught.value.param == param


def test_call_before_the_request_waits_for_its_result() -> None:
    check_calls([CALL], [RESULT], "input")

    with pytest.raises(InvalidRequestError, match="call-1") as caught:
        check_calls([CALL], [], "input")
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    ("choice", "names", "asked"),
    [
        ("auto", ["add", "mul"], "auto"),
        ("none", ["add", "mul"], "none"),
        ("required", ["add", "mul"], "required"),
        ({"type": "function", "name": "mul"}, ["add", "mul"], "mul"),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"name": "mul"}]},
            ["mul"],
            "required",
        ),
    ],
)
def test_choice_of_tools_is_passed_on(choice: object, names: list[str], asked: str) -> None:
    settings: JsonObject = {**PLAIN, "tools": [ADD, MUL], "tool_choice": choice}  # type: ignore[dict-item] # JSON

    request = chat_request(settings, [], 7)

    functions = [tool["function"] for tool in request.tools]
    assert [function["name"] for function in functions if isinstance(function, dict)] == names
    assert request.tool_choice == asked


def test_seed_of_the_caller_comes_before_ours() -> None:
    assert chat_request(PLAIN, [], 7).sampling.seed == 7
    assert chat_request({**PLAIN, "seed": 3}, [], 7).sampling.seed == 3


ROLES = st.sampled_from(["user", "assistant", "tool"])


@given(st.lists(st.tuples(ROLES, st.integers(1, 9)), min_size=1), st.integers(0, 60))
async def test_oldest_messages_go_until_the_rest_fits(
    sizes: list[tuple[str, int]], most: int
) -> None:
    messages: list[JsonObject] = [{"role": "system", "content": "s"}]
    messages += [{"role": role, "content": "x" * size} for role, size in sizes]
    request = ChatRequest(messages=messages)

    async def count(asked: ChatRequest) -> int:
        return sum(len(str(each["content"])) for each in asked.messages)

    cut = await without_oldest(request, most=most, count=count)

    kept = list(cut.messages)
    assert kept[0] == messages[0]
    assert kept[1:] == messages[len(messages) - len(kept) + 1 :]
    if len(kept) < len(messages):
        assert kept[1]["role"] != "tool"
        longer = [at for at in range(1, len(messages) - len(kept) + 1) if _may_begin(messages, at)]
        for at in longer:
            assert await count(ChatRequest(messages=[messages[0], *messages[at:]])) > most
    else:
        assert await count(cut) <= most or not any(
            _may_begin(messages, at) for at in range(2, len(messages))
        )


def _may_begin(messages: list[JsonObject], at: int) -> bool:
    return at == 1 or messages[at]["role"] != "tool"
