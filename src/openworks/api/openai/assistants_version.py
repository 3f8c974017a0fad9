"""Which version of the Assistants API a caller speaks; there is one here."""

from __future__ import annotations

from functools import wraps

from openworks.api.answers import Answer
from openworks.api.context import Context
from openworks.api.endpoint import Handler
from openworks.core.errors import InvalidRequestError

_API, _SERVED = "assistants=", "assistants=v2"


def version_2(handler: Handler) -> Handler:
    """Serve callers that ask for version 2 (`OpenAI-Beta: assistants=v2`), or for none.

    OpenAI refused the latter. Whoever asks for another version is refused here too: its shapes
    differ, and would be misread.
    """

    @wraps(handler)
    async def served(context: Context) -> Answer:
        for asked in context.request.headers.get("openai-beta", "").split(","):
            if asked.strip().startswith(_API) and asked.strip() != _SERVED:
                raise InvalidRequestError(
                    f"The header OpenAI-Beta asks for {asked.strip()[:40]!r}; this server has "
                    f"{_SERVED!r}.",
                    code="invalid_beta",
                )
        return await handler(context)

    return served
