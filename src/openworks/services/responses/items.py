"""Items as they come from callers: named, told apart, checked against those before them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from openworks.core.errors import InvalidRequestError
from openworks.core.ids import NewId
from openworks.core.json import JsonObject

_PREFIXES: Final[Mapping[str, str]] = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "compaction": "cmp_",
}


def named(items: Iterable[JsonObject], new_id: NewId) -> list[JsonObject]:
    """Return items that each have an id; those that have one keep it."""
    return [
        item if item.get("id") else {**item, "id": new_id(_PREFIXES[str(item["type"])])}
        for item in items
    ]


def referenced_ids(items: Iterable[JsonObject]) -> list[str]:
    """Return the ids of the items that are only referred to."""
    return [str(item["id"]) for item in items if item["type"] == "item_reference"]


def resolved(
    items: Iterable[JsonObject], found: Mapping[str, JsonObject], param: str
) -> list[JsonObject]:
    """Return items, those that others refer to in the place of the reference.

    Raises:
        InvalidRequestError: One is not there.
    """
    whole: list[JsonObject] = []
    for place, item in enumerate(items):
        if item["type"] != "item_reference":
            whole.append(item)
        elif (kept := found.get(str(item["id"]))) is not None:
            whole.append(kept)
        else:
            raise _invalid(
                f"{param}[{place}].id",
                f"no item found with id {str(item['id'])[:100]!r}; items are kept with responses "
                "that are stored, and with conversations.",
            )
    return whole


def check_new(before: Sequence[JsonObject], new: Sequence[JsonObject], param: str) -> None:
    """Return if no item comes twice.

    Raises:
        InvalidRequestError: One does.
    """
    known = {str(item["id"]) for item in before}
    for place, item in enumerate(new):
        id_ = str(item["id"])
        if id_ in known:
            raise _invalid(
                f"{param}[{place}].id", f"there is an item with id {id_[:100]!r} already."
            )
        known.add(id_)


def is_whole(item: JsonObject) -> bool:
    """Whether a model can go on from an item: not from a call that was cut off."""
    return item["type"] != "function_call" or item["status"] != "incomplete"


def check_calls(before: Sequence[JsonObject], new: Sequence[JsonObject], param: str) -> None:
    """Return if every call has its output behind it, and every output its call before it.

    Raises:
        InvalidRequestError: One has not.
    """
    waiting: dict[str, str] = {}
    places = [param] * len(before) + [f"{param}[{place}]" for place in range(len(new))]
    for place, item in zip(places, (*before, *new), strict=True):
        call_id = str(item.get("call_id"))
        if item["type"] == "function_call" and is_whole(item):
            waiting[call_id] = place
        elif item["type"] == "function_call_output" and waiting.pop(call_id, None) is None:
            raise _invalid(
                f"{place}.call_id" if place != param else param,
                f"there is no call with call_id {call_id[:100]!r} that waits for an output.",
            )
    for call_id, place in waiting.items():
        raise _invalid(place, f"no output was sent for the call with call_id {call_id[:100]!r}.")


def _invalid(param: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(f"Invalid '{param}': {what}", code="invalid_value", param=param)
