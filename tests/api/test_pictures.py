"""A chat model with eyes, served from a folder: the weights and the projector lie side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from openai import BadRequestError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from benchmarks.random_model import PRESETS, write_random_llama
from benchmarks.random_parts import write_random_eyes
from tests.conftest import ClientFor, StartServer
from tests.pictures import data_url, png


def shown(url: str) -> list[ChatCompletionMessageParam]:
    return [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": url}},
            ],
        }
    ]


@pytest.fixture
def seeing(tmp_path: Path, start_server: StartServer, client_for: ClientFor) -> OpenAI:
    folder = tmp_path / "seer"
    folder.mkdir()
    write_random_llama(folder / "chat.gguf", PRESETS["tiny"])
    write_random_eyes(folder / "mmproj-F16.gguf", text_dim=PRESETS["tiny"].dim)
    return client_for(start_server({"models": [str(folder)]}))


def test_answer_depends_on_the_picture(seeing: OpenAI) -> None:
    def said(colour: tuple[int, int, int]) -> str | None:
        answer = seeing.chat.completions.create(
            model="seer", messages=shown(data_url(png(40, 40, colour))), temperature=0, max_tokens=9
        )
        return answer.choices[0].message.content

    assert said((255, 0, 0)) == said((255, 0, 0))
    assert said((255, 0, 0)) != said((0, 0, 255))


def test_address_of_a_picture_is_refused_at_its_place(seeing: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        seeing.chat.completions.create(model="seer", messages=shown("http://127.0.0.1/a.png"))
    assert caught.value.param == "messages[0].content[1].image_url.url"
