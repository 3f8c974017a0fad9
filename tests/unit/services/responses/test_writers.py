from __future__ import annotations

import asyncio

from openworks.core.ids import AccountId
from openworks.ports.jobs import Claim
from openworks.services.responses.writers import MAX_UNHEARD, LiveWriter

CLAIM = Claim(
    kind="response", subject_id="resp_1", account_id=AccountId("acct-1"), token=1, attempt=1
)


async def test_listener_hears_every_event_in_order_until_the_stream_is_closed() -> None:
    writer = LiveWriter(CLAIM)
    await writer.put("first", {})
    writer.show(await writer.number([("second", {}), ("third", {})]))
    writer.close()

    heard = [event async for event in writer.events()]

    assert [(event.number, event.name) for event in heard] == [
        (0, "first"),
        (1, "second"),
        (2, "third"),
    ]


async def test_response_waits_for_a_listener_who_is_far_behind() -> None:
    writer = LiveWriter(CLAIM)
    for _ in range(MAX_UNHEARD):
        await writer.put("delta", {})
    next_put = asyncio.create_task(writer.put("delta", {}))
    await asyncio.sleep(0)
    assert not next_put.done()

    listener = writer.events()
    await anext(listener)
    await anext(listener)  # the first was heard by now

    await next_put
    await listener.aclose()
