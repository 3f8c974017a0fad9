"""What the tools of assistants and threads work on, as far as there are such tools here."""

from __future__ import annotations

from typing import cast

from openworks.api.context import as_object
from openworks.api.openai import values
from openworks.core.json import JsonObject, JsonValue


def tool_resources(value: JsonValue) -> JsonObject:
    """Return resources whose types have been checked, without what is null.

    Raises:
        UnsupportedParameterError: They name files for a code interpreter, or vector stores: this
            server has neither, so that no id of one can be right.
    """
    resources: JsonObject = {
        name: each for name, each in as_object(value or {}).items() if each is not None
    }
    interpreter = as_object(resources.get("code_interpreter") or {})
    if interpreter.get("file_ids"):
        raise values.unsupported(
            "tool_resources.code_interpreter.file_ids", "files for 'code_interpreter': it has none."
        )
    search = as_object(resources.get("file_search") or {})
    if search.get("vector_stores"):
        raise values.unsupported(
            "tool_resources.file_search.vector_stores", "vector stores yet; leave it out."
        )
    if ids := cast("list[str]", search.get("vector_store_ids") or []):
        raise values.unsupported(
            "tool_resources.file_search.vector_store_ids[0]",
            f"vector stores yet; none is called {ids[0][:80]!r}.",
        )
    return resources
