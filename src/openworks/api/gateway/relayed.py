"""A gateway's answer over ASGI."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openworks.gateway.messages import GatewayAnswer

_BODILESS = (204, 304)


async def send_gateway_answer(answer: GatewayAnswer, send: Send) -> None:
    """Send an answer, whole or as it flows.

    Raises:
        UpstreamError: It broke off; the server must cut the connection.
    """
    headers = list(answer.headers)
    if answer.body is not None:
        if answer.status not in _BODILESS:
            headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
        return
    chunks = answer.chunks
    assert chunks is not None
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await chunks.aclose()


class Relayed(Response):
    """A gateway's answer as one of a route."""

    def __init__(self, answer: GatewayAnswer) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, whole or as it flows.

        Raises:
            UpstreamError: It broke off; the server must cut the connection.
        """
        await send_gateway_answer(self._answer, send)
