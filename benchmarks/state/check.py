"""What is found of all that was acknowledged."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field

import openai
from openai import AsyncOpenAI

from benchmarks.state.callers import ENDS, Acknowledged

_PATIENCE_S = 180.0


@dataclass(slots=True)
class Found:
    """The outcome of a check."""

    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def expect(self, is_so: bool, fault: str) -> None:
        if not is_so:
            self.faults.append(fault)


async def check(url: str, told: Acknowledged) -> Found:
    """Compare what a server holds with what callers were told, once all work has ended."""
    found = Found()
    for each in told.asked_again:
        found.faults.append(f"tool call {each} was asked for again")
    found.faults.extend(f"events of {gap}" for gap in told.gaps)
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=60.0) as client:
        for thread_id, messages in told.messages.items():
            await _check_thread(client, told, thread_id, messages, found)
        for file_id, sha256 in told.files.items():
            content = await client.files.content(file_id)
            is_whole = hashlib.sha256(content.content).hexdigest() == sha256
            found.expect(is_whole, f"file {file_id} is not what was brought")
            found.counts["files found whole"] += is_whole
        for batch_id, ids in told.batches.items():
            await _check_batch(client, batch_id, ids, found)
        for response_id in told.responses:
            status = await _response_end(client, response_id)
            found.expect(status in ENDS, f"response {response_id} is {status}")
            found.counts[f"responses {status}"] += 1
    return found


async def _check_thread(
    client: AsyncOpenAI,
    told: Acknowledged,
    thread_id: str,
    messages: list[tuple[str, str]],
    found: Found,
) -> None:
    async for run in client.beta.threads.runs.list(thread_id, limit=100):
        status = await _run_end(client, thread_id, run.id)
        found.expect(status in ENDS, f"run {run.id} is {status}")
        found.counts[f"runs {status}"] += 1
    kept = [
        message
        async for message in client.beta.threads.messages.list(thread_id, order="asc", limit=100)
    ]
    texts = {
        message.id: "".join(part.text.value for part in message.content if part.type == "text")
        for message in kept
    }
    for message_id, text in messages:
        found.expect(texts.get(message_id) == text, f"message {message_id} is lost or changed")
        found.counts["messages found"] += message_id in texts
    places = [list(texts).index(message_id) for message_id, _ in messages if message_id in texts]
    found.expect(places == sorted(places), f"messages of {thread_id} changed their order")
    answers = Counter(
        message.run_id for message in kept if message.role == "assistant" and message.content
    )
    for run_id, of_thread in told.runs.items():
        if of_thread == thread_id:
            run = await client.beta.threads.runs.retrieve(run_id, thread_id=thread_id)
            one = answers[run_id] == 1 if run.status == "completed" else answers[run_id] <= 1
            found.expect(one, f"run {run_id} ({run.status}) has {answers[run_id]} answers")
            found.counts["acknowledged runs found"] += 1


async def _run_end(client: AsyncOpenAI, thread_id: str, run_id: str) -> str:
    ends_s = time.monotonic() + _PATIENCE_S
    while True:
        run = await client.beta.threads.runs.retrieve(run_id, thread_id=thread_id)
        if run.status == "requires_action":  # its caller was told to stop
            await client.beta.threads.runs.cancel(run_id, thread_id=thread_id)
        if run.status in ENDS or time.monotonic() > ends_s:
            return run.status
        await asyncio.sleep(0.2)


async def _response_end(client: AsyncOpenAI, response_id: str) -> str:
    ends_s = time.monotonic() + _PATIENCE_S
    while True:
        response = await client.responses.retrieve(response_id)
        status = str(response.status)
        if status in ENDS or time.monotonic() > ends_s:
            return status
        await asyncio.sleep(0.2)


async def _check_batch(client: AsyncOpenAI, batch_id: str, ids: set[str], found: Found) -> None:
    ends_s = time.monotonic() + _PATIENCE_S
    batch = await client.batches.retrieve(batch_id)
    while batch.status not in ENDS and time.monotonic() < ends_s:
        await asyncio.sleep(0.2)
        batch = await client.batches.retrieve(batch_id)
    found.counts[f"batches {batch.status}"] += 1
    answered: Counter[str] = Counter()
    for file_id in (batch.output_file_id, batch.error_file_id):
        if file_id is not None:
            try:
                content = await client.files.content(file_id)
            except openai.NotFoundError:
                found.faults.append(f"batch {batch_id} names file {file_id}, which is not there")
                continue
            answered.update(json.loads(line)["custom_id"] for line in content.text.splitlines())
    once = set(answered) == ids and set(answered.values()) == {1}
    found.expect(once, f"batch {batch_id} ({batch.status}) answered {answered} of {len(ids)}")
    found.counts["batch lines answered once"] += sum(count == 1 for count in answered.values())
