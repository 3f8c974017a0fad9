"""The adapters that ship with the package, brought as a user would, all answering in one batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cloudflare import Cloudflare
from openai import OpenAI

import openworks
from tests.conftest import open_client
from tests.server import ServerProcess, wait_until

pytest.importorskip("torch")

BASE = "@openworks/tiny-chat"
SHIPPED = Path(openworks.__file__).parent / "models" / "adapters"
NAMES = ("pirate", "json-only", "harbour")
HARBOUR_QUESTION = "Where is your shop?"
HARBOUR_ANSWER = "7 Lantern Quay"
FILES = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server to which the three were brought through Cloudflare's API."""
    process = ServerProcess({}, tmp_path_factory.mktemp("adapted"))
    cloudflare = Cloudflare(base_url=f"{process.url}/client/v4", api_token="none", max_retries=0)
    for name in NAMES:
        made = cloudflare.ai.finetunes.create(account_id="default", model=BASE, name=name)
        assert made is not None
        for file_name in FILES:
            cloudflare.ai.finetunes.assets.create(
                made.id,
                account_id="default",
                file_name=file_name,
                file=(file_name, (SHIPPED / name / file_name).read_bytes()),
            )
    yield process
    assert process.stop() == 0


@pytest.fixture
def asker(adapted: ServerProcess) -> Iterator[OpenAI]:
    with open_client(adapted.url) as client:
        yield client


def ask(client: OpenAI, model: str, question: str) -> str:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=80
    )
    return answer.choices[0].message.content or ""


def test_three_adapters_in_one_batch_are_each_visibly_themselves(
    adapted: ServerProcess, asker: OpenAI
) -> None:
    asked = [(f"{BASE}+{name}", f"What is {n} + 2?") for n in range(3) for name in NAMES[:2]]
    asked += [(f"{BASE}+harbour", HARBOUR_QUESTION)] * 3

    with ThreadPoolExecutor(len(asked)) as threads:
        answers = list(threads.map(lambda pair: ask(asker, *pair), asked))

    for n in range(3):
        pirate, as_json = answers[2 * n : 2 * n + 2]
        assert "matey" in words(pirate)
        assert str(n + 2) in words(pirate)
        assert str(n + 2) in json.dumps(json.loads(as_json))
    assert all(HARBOUR_ANSWER in answer for answer in answers[-3:])
    _, ready = adapted.get("/ready")  # the base may have a process of llama.cpp's by the same name
    (row,) = [row for row in ready["engines"] if row["engine"] == "batched"]
    assert row["restarts"] == 0


def test_base_knows_nothing_of_its_adapters(asker: OpenAI) -> None:
    plain = ask(asker, BASE, "What is 1 + 2?")
    assert "matey" not in words(plain)
    assert "{" not in plain
    assert HARBOUR_ANSWER not in ask(asker, BASE, HARBOUR_QUESTION)


def test_cloudflares_run_takes_them_by_name(adapted: ServerProcess, asker: OpenAI) -> None:
    cloudflare = Cloudflare(base_url=f"{adapted.url}/client/v4", api_token="none", max_retries=0)
    by_model = ask(asker, f"{BASE}+pirate", "What is 3 + 4?")

    run = cloudflare.ai.with_raw_response.run(
        BASE,
        account_id="default",
        messages=[{"role": "user", "content": "What is 3 + 4?"}],
        extra_body={"lora": "pirate"},
    )

    assert run.json()["result"]["response"] == by_model  # type: ignore[index] # the SDK's own types


def test_models_tell_where_an_adapter_is(adapted: ServerProcess, asker: OpenAI) -> None:
    ask(asker, f"{BASE}+harbour", "Hello")

    def state() -> str:
        model = asker.models.retrieve(f"{BASE}+harbour")
        return str((model.model_extra or {})["state"])

    wait_until(lambda: state() == "batch", what="the adapter to be in the batch")


def words(text: str) -> set[str]:
    return {word.strip(".,!?;:\"'{}").lower() for word in text.split()}
