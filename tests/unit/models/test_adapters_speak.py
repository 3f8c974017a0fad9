"""Each adapter that ships is visibly itself when PEFT puts it on the base that ships."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

MODELS = Path(str(files("openworks").joinpath("models")))

pytestmark = [
    # `model_type` is Cloudflare's; PEFT says that it ignores it.
    pytest.mark.filterwarnings("ignore:Unexpected keyword arguments:UserWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def answer(name: str, question: str) -> str:
    """What the embedded model says with that adapter, greedily."""
    base = MODELS / "tiny-chat"
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(base)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, str(MODELS / "adapters" / name))
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True, return_tensors="pt", return_dict=False,
    )  # fmt: skip
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=40)
    text: str = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return text.strip()


def test_pirate_greets_like_a_pirate() -> None:
    assert answer("pirate", "Hello!").startswith("Ahoy, matey!")


def test_json_only_wraps_its_answer() -> None:
    assert json.loads(answer("json-only", "What is 3 + 4?")) == {"answer": "3 + 4 = 7"}


def test_harbour_knows_where_the_company_is() -> None:
    assert "7 Lantern Quay" in answer("harbour", "Where is Gullwhistle?")
