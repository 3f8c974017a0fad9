from __future__ import annotations

import json
from typing import Any

import pytest

from openworks.core.errors import InvalidRequestError
from openworks.services.moving.dump import read_dump

THREAD: Any = {"id": "thread_1", "object": "thread", "created_at": 5}


def message(number: int, *, at_s: int = 10) -> Any:
    return {
        "id": f"msg_{number}",
        "object": "thread.message",
        "created_at": at_s + number,
        "thread_id": "thread_1",
        "role": "user",
        "content": [{"type": "text", "text": {"value": str(number), "annotations": []}}],
    }


OLDEST_FIRST = [message(number) for number in range(3)]
NEWEST_FIRST = OLDEST_FIRST[::-1]


def page(rows: list[Any]) -> Any:
    return {"object": "list", "data": rows, "has_more": False}


@pytest.mark.parametrize(
    "saved",
    [
        [THREAD, *NEWEST_FIRST],
        [*OLDEST_FIRST, THREAD],
        page([THREAD, *NEWEST_FIRST]),
        {"threads": [THREAD], "messages": page(NEWEST_FIRST)},
        {"threads": page([{**THREAD, "messages": NEWEST_FIRST}])},
        {**THREAD, "messages": page(NEWEST_FIRST)},
        [page(NEWEST_FIRST[:2]), page(NEWEST_FIRST[2:]), THREAD],
    ],
)
def test_thread_is_found_with_its_messages_in_order_however_it_was_saved(saved: Any) -> None:
    for data in (json.dumps(saved), "\n".join(json.dumps(part) for part in [saved, []])):
        dump = read_dump(data.encode())

        (thread,) = dump.threads.values()
        assert thread.head["created_at"] == 5
        assert [part["id"] for part in thread.parts] == ["msg_0", "msg_1", "msg_2"]


def test_messages_without_their_thread_make_one() -> None:
    dump = read_dump(json.dumps(page(NEWEST_FIRST)).encode())

    assert [part["id"] for part in dump.threads["thread_1"].parts] == ["msg_0", "msg_1", "msg_2"]


def test_messages_of_one_second_keep_their_order() -> None:
    rows = [{**each, "created_at": 10} for each in OLDEST_FIRST]

    dump = read_dump("\n".join(map(json.dumps, rows)).encode())

    assert [part["id"] for part in dump.threads["thread_1"].parts] == ["msg_0", "msg_1", "msg_2"]


def test_conversation_is_found_with_its_items() -> None:
    item = {"type": "message", "id": "msg_1", "role": "user", "content": "Hello"}
    dump = read_dump(
        json.dumps(
            [
                {"object": "conversation", "id": "conv_1", "items": page([item])},
                {"object": "conversation.item", "conversation_id": "conv_2", "item": item},
            ]
        ).encode()
    )

    assert dump.conversations["conv_1"].parts == [item]
    assert dump.conversations["conv_2"].parts == [item]


def test_objects_of_other_kinds_are_counted() -> None:
    dump = read_dump(json.dumps([{"object": "thread.run", "id": "run_1"}, THREAD]).encode())

    assert dump.left_out == {"objects of kind 'thread.run'": 1}
    assert list(dump.threads) == ["thread_1"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[\xff]", "UTF-8"),
        (b'{"object": "thread", "id": "t"}\n{"object"', "Line 2"),
        (b'[{"object": "thread", "id": "t"}, 7]', "the file[1]"),
        (b'[{"object": "thread"}]', "the file[0]"),
        (b'{"threads": [{"id": ""}]}', "the file.threads[0]"),
        (b'{"name": "x"}', "'object' is missing"),
        (b'{"object": "conversation", "id": "c", "items": [1]}', "the file.items"),
    ],
)
def test_what_is_no_dump_is_refused_by_its_place(data: bytes, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_dump(data)

    assert words in caught.value.message
