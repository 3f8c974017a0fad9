"""One contestant in a process of its own.

    python -m benchmarks.adapters.contestant torch MODEL --adapters FOLDER --count 32

Reads a round as JSON on each line of standard input and writes its figures as JSON; the first line
that it writes says what it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from benchmarks.adapters.rounds import Figures, Round, figures, prompts
from openworks.ports.catalog import ExecutorName

CONTEXT = 512
THREADS = len(os.sched_getaffinity(0))


class Contestant(Protocol):
    """Something that continues several prompts at once."""

    description: str

    def run(self, round_: Round, ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return, for each stream, when each token came, in seconds since the start."""
        ...


class OnThreads:
    """The base of contestants that take one request on each thread."""

    def run(self, round_: Round, ids: Sequence[Sequence[int]]) -> list[list[float]]:
        times: list[list[float]] = [[] for _ in ids]
        started_s = time.perf_counter()

        def ask(index: int) -> None:
            saw = times[index]
            self.ask(
                ids[index],
                round_.tokens,
                round_.adapters[index],
                lambda: saw.append(time.perf_counter() - started_s),
            )

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(ids))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return times

    def ask(
        self, ids: Sequence[int], tokens: int, adapter: int | None, saw: Callable[[], None]
    ) -> None:
        """Continue one prompt; call `saw` for each token."""
        raise NotImplementedError


class OpenWorks(OnThreads):
    """The batched engine, called as its process calls it."""

    def __init__(
        self,
        model: Path,
        adapters: Sequence[Path],
        *,
        precision: str,
        slots: int,
        executor: ExecutorName | None = None,
    ) -> None:
        from openworks.core.ids import AccountId
        from openworks.engines.base import Origin
        from openworks.engines.batched.engine import load
        from openworks.ports.adapters import Adapter
        from openworks.ports.catalog import Deployment, ModelEntry, Precision

        deployment = Deployment(
            entry=ModelEntry(id="bench", name="bench", task="text-generation"),
            engine="batched",
            weights=model,
            context_tokens=CONTEXT,
            parallel=slots,
            cache_tokens=CONTEXT * slots,
            adapter_slots=slots,
            threads=THREADS,
            executor=executor,
            precision=cast("Precision", precision),
        )
        self._engine = load(deployment, Path("unused"))
        account = AccountId("bench")
        self._origins: dict[int | None, Origin] = {None: Origin(account=account)}
        for index, folder in enumerate(adapters):
            adapter = Adapter(
                id=f"a{index}",
                name=f"a{index}",
                generation=f"g{index}",
                folder=folder,
                rank=8,
                size_bytes=(folder / "adapter_model.safetensors").stat().st_size,
            )
            self._origins[index] = Origin(account=account, adapter=adapter)
        report = self._engine.report()
        self.description = f"openworks batched ({report.description})"
        self._vocab = json.loads((model / "config.json").read_text())["vocab_size"]

    def ask(
        self, ids: Sequence[int], tokens: int, adapter: int | None, saw: Callable[[], None]
    ) -> None:
        from openworks.ports.text import CompletionRequest, Sampling, TextChunk

        class Watch:
            is_cancelled = False

            def __init__(self) -> None:
                self.completion_tokens = 0

            def still_working(self) -> None:
                pass

            def put(self, chunk: TextChunk) -> None:
                usage = chunk.usage
                if usage is None:
                    return
                # A token that is half a character says nothing until the next one comes.
                for _ in range(usage.completion_tokens - self.completion_tokens):
                    saw()
                self.completion_tokens = usage.completion_tokens

        ends = {self._vocab - 3: -100.0, self._vocab - 1: -100.0}  # so that lengths are equal
        request = CompletionRequest(
            prompt=list(ids),
            sampling=Sampling(max_tokens=tokens, temperature=0.0, logit_bias=ends),
        )
        self._engine.complete(request, self._origins[adapter], Watch())


class LlamaCpp(OnThreads):
    """The `xllamacpp` object with all adapters loaded at the start."""

    def __init__(
        self, model: Path, adapters: Sequence[Path], *, precision: str, slots: int
    ) -> None:
        import xllamacpp

        from openworks.core.gguf import read_header
        from openworks.engines.llamacpp.adapters import write_gguf

        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.verbosity = 1
        params.n_batch = 512
        params.n_parallel = slots
        params.n_ctx = slots * CONTEXT
        params.fit_params = False
        params.warmup = False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
        loras = []
        for folder in adapters:
            path = folder / "bench.gguf"
            if not path.exists():
                write_gguf(folder, path, read_header(model))
            loras.append(xllamacpp.CommonAdapterLoraInfo(str(path), 0.0))
        params.lora_adapters = loras
        self._server = xllamacpp.Server(params)
        self._count = len(loras)
        self.description = f"xllamacpp ({precision})"

    def ask(
        self, ids: Sequence[int], tokens: int, adapter: int | None, saw: Callable[[], None]
    ) -> None:
        body: dict[str, object] = {
            "prompt": list(ids),
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "ignore_eos": True,
        }
        if self._count:
            body["lora"] = [] if adapter is None else [{"id": adapter, "scale": 1.0}]

        def on_event(event: bytes) -> None:
            if b'"text":' in event:
                saw()

        self._server.handle_completions(json.dumps(body).encode(), on_event)


class Peft:
    """PEFT's own mixed batches: `generate(adapter_names=...)`, a static batch in bfloat16."""

    def __init__(
        self, model: Path, adapters: Sequence[Path], *, precision: str, slots: int
    ) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(THREADS)
        base: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
        self._model = base
        for index, folder in enumerate(adapters):
            if index == 0:
                self._model = PeftModel.from_pretrained(base, folder, adapter_name="a0")
            else:
                self._model.load_adapter(folder, adapter_name=f"a{index}")
        self._model.eval()
        self.description = "transformers generate, PEFT adapter_names (bfloat16)"

    def run(self, round_: Round, ids: Sequence[Sequence[int]]) -> list[list[float]]:
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList

        times: list[float] = []
        started_s = time.perf_counter()

        class Watch(StoppingCriteria):
            def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> object:
                times.append(time.perf_counter() - started_s)
                return torch.zeros(input_ids.shape[0], dtype=torch.bool)

        names = ["__base__" if index is None else f"a{index}" for index in round_.adapters]
        extra: dict[str, Any] = (
            {"adapter_names": names} if any(each != "__base__" for each in names) else {}
        )
        prompt = torch.tensor([list(each) for each in ids])
        with torch.inference_mode():
            self._model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=round_.tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                stopping_criteria=StoppingCriteriaList([Watch()]),
                **extra,
            )
        return [times] * len(ids)


CONTESTANTS: dict[str, Callable[..., Contestant]] = {
    "openvino": partial(OpenWorks, executor="openvino"),
    "torch": partial(OpenWorks, executor="torch"),
    "llamacpp": LlamaCpp,
    "peft": Peft,
}


def run(contestant: Contestant, line: str) -> Figures:
    """Run the round of one line."""
    fields = json.loads(line)
    round_ = Round(**{**fields, "adapters": tuple(fields["adapters"])})
    return figures(contestant.run(round_, prompts(round_)))


def main() -> None:
    """Load, say what it is, then answer rounds until standard input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=sorted(CONTESTANTS))
    parser.add_argument("model", type=Path)
    parser.add_argument("--adapters", type=Path, help="a folder of adapters' folders")
    parser.add_argument("--count", type=int, default=0, help="how many of them are loaded")
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    folders = sorted(options.adapters.iterdir())[: options.count] if options.count else []
    contestant = CONTESTANTS[options.name](
        options.model, folders, precision=options.precision, slots=options.slots
    )
    print(json.dumps({"description": contestant.description}), flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(run(contestant, line))), flush=True)


if __name__ == "__main__":
    main()
