"""The JSON object that most families write for a call: a name and an object of arguments."""

from __future__ import annotations

import json

from openworks.engines.batched.formats.answer import Answer
from openworks.engines.batched.formats.reader import NotACall, Steps

_ARGUMENTS = ("arguments", "parameters")
_HEAD = ("name", *_ARGUMENTS, "type", "id")
"""What may come before the arguments. An object that begins otherwise is content."""


def call_head(name: str, arguments_key: str) -> str:
    """Return the text of a call up to its arguments, spaced as `json.dumps` does it."""
    return f'{{"name": {json.dumps(name, ensure_ascii=False)}, "{arguments_key}": '


def read_json_call(answer: Answer, stops: tuple[str, ...] = ()) -> Steps[None]:
    """Read one object and give it out as a call.

    Args:
        answer: To read from and write to.
        stops: Texts that end the arguments where they are not closed.

    Raises:
        NotACall: Before anything was given out.
    """
    reader = answer.reader
    name, early_arguments = "", ""
    yield from reader.expect("{")
    while True:
        yield from reader.skip_space()
        key = yield from _key(answer, _HEAD)
        if key == "name":
            name = yield from reader.string(answer.tools)
        elif key in _ARGUMENTS and name:
            yield from read_arguments(answer, name, stops)
            break
        elif key in _ARGUMENTS:
            early_arguments = yield from _object(answer)
        else:
            yield from reader.value()
        if name and early_arguments:
            answer.begin_call(name)
            answer.argue(early_arguments)
            answer.end_call()
            break
        yield from reader.skip_space()
        yield from reader.expect(",")
    yield from answer.attempt(_read_rest(answer))


def read_arguments(answer: Answer, name: str, stops: tuple[str, ...] = ()) -> Steps[None]:
    """Begin a call of `name` and give out its arguments, as the model writes them.

    Raises:
        NotACall: They are not an object; nothing was given out.
    """
    if (yield from answer.reader.peek()) != "{":
        raise NotACall
    answer.begin_call(name)
    closed = yield from answer.reader.nested(answer.argue, stops)
    if closed or (yield from answer.reader.peek()):
        answer.end_call()


def _read_rest(answer: Answer) -> Steps[None]:
    """Read what may follow the arguments: further members, and the brace that weak models omit."""
    reader = answer.reader
    yield from reader.skip_space()
    while (yield from reader.accept(",")):
        yield from reader.skip_space()
        yield from _key(answer, None)
        yield from reader.value()
        yield from reader.skip_space()
    yield from reader.accept("}")


def _key(answer: Answer, known: tuple[str, ...] | None) -> Steps[str]:
    reader = answer.reader
    key = yield from reader.string(known)
    yield from reader.skip_space()
    yield from reader.expect(":")
    yield from reader.skip_space()
    return key


def _object(answer: Answer) -> Steps[str]:
    if (yield from answer.reader.peek()) != "{":
        raise NotACall
    return (yield from answer.reader.value())
