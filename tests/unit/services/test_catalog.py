from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.random_parts import write_random_reranker
from openworks.core.errors import InvalidRequestError, ModelNotFoundError
from openworks.ports.catalog import ModelEntry, WeightsSource
from openworks.ports.weights import LocalWeights, Progress, PulledRepo
from openworks.services.catalog import Catalog, CatalogConfig
from openworks.services.catalog_files import read_catalog
from openworks.services.placement import ModelConfig
from openworks.storage.weights.cache import check_repo
from tests.models import random_model


@dataclass
class FakeWeights:
    """Weights that are here if their repository, package or path is listed."""

    here: dict[str, Path] = field(default_factory=dict)

    def locate(self, source: WeightsSource) -> LocalWeights | None:
        if source.repo is not None:
            check_repo(source.repo)
        path = self.here.get(str(source.repo or source.package or source.path))
        if path is None:
            return None
        return LocalWeights(path=path, mmproj=None, size_bytes=path.stat().st_size)

    async def fetch(self, source: WeightsSource, *, on_progress: Progress) -> LocalWeights:
        raise NotImplementedError

    async def resolve_file(self, name: str) -> WeightsSource:
        raise NotImplementedError

    def pulled(self) -> Sequence[PulledRepo]:
        return []

    async def remove(self, repo: str) -> int:
        return 0


LLAMA = ModelEntry(
    id="@cf/meta/llama",
    name="Llama",
    task="text-generation",
    aliases=("llama",),
    context_tokens=131072,
    weights={"llamacpp": WeightsSource(repo="meta/llama-gguf", file="llama.gguf")},
)
WHISPER = ModelEntry(
    id="@cf/openai/whisper",
    name="Whisper",
    task="automatic-speech-recognition",
    weights={"transformers": WeightsSource(repo="openai/whisper")},
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("models") / "random.gguf")


def catalog(config: CatalogConfig | None = None) -> Catalog:
    return Catalog(
        [LLAMA, WHISPER],
        {"gpt-4o": "text-generation", "whisper-1": "automatic-speech-recognition"},
        weights=FakeWeights(),
        config=config or CatalogConfig(defaults={"text-generation": LLAMA.id}),
    )


@pytest.mark.parametrize("name", ["@cf/meta/llama", "llama", "gpt-4o"])
def test_id_alias_and_openai_name_reach_the_same_model(name: str, model: Path) -> None:
    weights = FakeWeights({"meta/llama-gguf": model})
    made = Catalog(
        [LLAMA],
        {"gpt-4o": "text-generation"},
        weights=weights,
        config=CatalogConfig(defaults={"text-generation": LLAMA.id}),
    )
    assert made.resolve(name).id == LLAMA.id


def test_alias_of_the_settings_wins_over_every_other_name(model: Path) -> None:
    config = CatalogConfig(defaults={"text-generation": LLAMA.id}, aliases={"gpt-4o": WHISPER.id})
    entry = catalog(config).find("gpt-4o")
    assert entry is WHISPER


def test_known_model_that_is_not_here_is_told_with_the_command_that_fetches_it() -> None:
    with pytest.raises(ModelNotFoundError, match="openworks models pull @cf/meta/llama"):
        catalog().resolve("llama")


def test_model_without_an_engine_is_told_so() -> None:
    with pytest.raises(ModelNotFoundError, match="no engine of this server runs it yet"):
        catalog().resolve(WHISPER.id)


def test_weights_of_a_model_without_an_engine_are_not_worth_fetching() -> None:
    made = catalog()
    assert made.source_of(LLAMA).repo == "meta/llama-gguf"
    with pytest.raises(ModelNotFoundError, match="no engine of this server runs it yet"):
        made.source_of(WHISPER)


def test_unknown_name_is_told_with_the_nearest_known_one() -> None:
    with pytest.raises(ModelNotFoundError, match="Did you mean '@cf/meta/llama'"):
        catalog().resolve("@cf/meta/lama")


@pytest.mark.parametrize("name", ["/etc/passwd", "../model.gguf", "model.gguf", "a" * 10_000])
def test_callers_cannot_name_files(name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        catalog().resolve(name)
    assert len(caught.value.message) < 500


def test_name_that_is_too_long_is_refused_at_once_and_cut() -> None:
    began_s = time.perf_counter()
    with pytest.raises(ModelNotFoundError, match="at most 256 characters") as caught:
        catalog().resolve("a/" + "b" * 24_000_000)
    assert time.perf_counter() - began_s < 0.5
    assert caught.value.param == "model"
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("name", ["a--b/c", "../..", "a..b/c", "./nope.gguf", "-/-"])
def test_name_that_no_repository_can_have_is_an_unknown_model(name: str) -> None:
    made = catalog()
    assert made.find(name) is None
    with pytest.raises(ModelNotFoundError, match="does not exist") as caught:
        made.resolve(name)
    assert caught.value.param == "model"


def test_context_is_the_smaller_of_what_is_set_and_what_the_file_was_trained_for(
    model: Path,
) -> None:
    weights = FakeWeights({"meta/llama-gguf": model})  # its header says 4096

    def served(context_tokens: int) -> int | None:
        config = CatalogConfig(
            models={LLAMA.id: ModelConfig(context_tokens=context_tokens, parallel=2, pinned=True)}
        )
        made = Catalog([LLAMA], {}, weights=weights, config=config).resolve(LLAMA.id)
        assert (made.parallel, made.pinned) == (2, True)
        return made.context_tokens

    assert served(1000) == 1000
    assert served(100_000) == 4096


def test_memory_grows_with_context_and_slots(model: Path) -> None:
    weights = FakeWeights({"meta/llama-gguf": model})

    def needed(context_tokens: int, parallel: int) -> int:
        config = CatalogConfig(context_tokens=context_tokens, parallel=parallel)
        return Catalog([LLAMA], {}, weights=weights, config=config).resolve(LLAMA.id).memory_bytes

    assert needed(1024, 1) < needed(2048, 1) < needed(2048, 4)


def test_file_of_the_operator_is_described_by_its_header_and_becomes_the_default(
    model: Path, tmp_path: Path
) -> None:
    reranker = tmp_path / "scores.gguf"
    write_random_reranker(reranker)
    weights = FakeWeights({str(model): model, str(reranker): reranker})
    made = Catalog([LLAMA], {"gpt-4o": "text-generation"}, weights=weights, config=CatalogConfig())
    made.serve(WeightsSource(path=model), "mine")
    assert made.resolve("gpt-4o").id == "mine"
    assert made.serve(WeightsSource(path=reranker), "scores").task == "rerank"
    assert {entry.id for entry in made.served()} == {"mine", "scores"}


def test_file_wins_over_an_alias_of_the_catalogue(model: Path) -> None:
    made = Catalog([LLAMA], {}, weights=FakeWeights({str(model): model}), config=CatalogConfig())
    made.serve(WeightsSource(path=model), "llama")
    assert made.resolve("llama").id == "llama"


def test_other_format_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    made = Catalog([], {}, weights=FakeWeights({str(path): path}), config=CatalogConfig())
    with pytest.raises(InvalidRequestError, match=r"model\.safetensors is neither a \.gguf"):
        made.serve(WeightsSource(path=path), "mine")


def test_names_of_the_package_catalogue_are_unique_and_every_alias_has_a_task() -> None:
    files = read_catalog()
    names = [entry.id for entry in files.entries]
    names += [alias for entry in files.entries for alias in entry.aliases]
    assert len(names) == len(set(names))
    assert not set(names) & set(files.task_aliases)
    assert len(files.entries) > 50


def test_every_model_of_the_catalogue_says_where_its_weights_are() -> None:
    for entry in read_catalog().entries:
        assert entry.weights, entry.id
        if entry.task in {"text-generation", "text-embeddings", "rerank"}:
            assert entry.context_tokens, entry.id
