"""Manners that stored objects share: ids in paths, lists, farewells."""

from __future__ import annotations

from collections.abc import Sequence

from openworks.api.answers import Json
from openworks.api.context import Context
from openworks.core.errors import NotFoundError
from openworks.core.json import JsonObject, JsonValue


def path_id(context: Context, name: str) -> str:
    """Return an id of the request's path.

    Raises:
        NotFoundError: It holds a character that no id has, and some databases cannot take.
    """
    id_ = str(context.request.path_params[name])
    if "\0" in id_:
        raise NotFoundError(f"Nothing is found with id {id_[:100]!r}.")
    return id_


def body_or_nothing(context: Context) -> JsonValue:
    """Decode a body in which nothing is required: to leave it out is to send an empty object."""
    return context.json() if context.body else {}


def list_body(rows: Sequence[JsonObject], *, has_more: bool) -> JsonObject:
    """Return a page of a list as OpenAI has it."""
    return {
        "object": "list",
        "data": [*rows],
        "first_id": rows[0]["id"] if rows else None,
        "last_id": rows[-1]["id"] if rows else None,
        "has_more": has_more,
    }


def deleted(kind: str, id_: str) -> Json:
    """Answer that an object is gone."""
    return Json({"id": id_, "object": f"{kind}.deleted", "deleted": True})
