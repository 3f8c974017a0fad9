"""The executor in `transformers`, for model families that we do not read: slower, but served."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, cast

import torch
from torch import Tensor

from openworks.core.errors import InvalidRequestError, ModelUnavailableError
from openworks.engines.batched.executor import AdapterWeights, CacheShape
from openworks.engines.batched.linear import Precision, activation_dtype
from openworks.engines.batched.step import Piece, Step
from openworks.engines.batched.weights import weights_bytes
from openworks.engines.threads import SMALL_MODEL_BYTES

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

_CACHES = ("past_key_values", "cache_params")
"""What models call their cache, in their arguments and in what they return."""
_CONTEXTS = ("max_position_embeddings", "max_seq_len")
"""What configurations call the longest text; models without a limit have neither."""
_MAX_REASON_CHARS = 300


class _LoadingInfo(TypedDict):
    """What is used of the library's report; it has no types for it."""

    missing_keys: Collection[str]
    mismatched_keys: Collection[tuple[str, Sequence[int], Sequence[int]]]
    """With the shape as stored, and as the model has it."""
    unexpected_keys: Collection[str]


log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Text:
    """What one block holds: a sequence, and the cache of its beginning."""

    token_ids: list[int] = field(default_factory=list)
    cache: DynamicCache | None = None
    num_cached: int = 0
    """How many of the tokens are in `cache`; the others are computed when logits are wanted."""


class TransformersExecutor:
    """A model of the library with a cache for each sequence, which are computed one by one.

    A block is a whole sequence, so that no two share one. Recurrent models (Mamba and hybrids)
    cannot go back, and continue a text only token by token: their prompts are computed at once,
    with the piece that wants logits. Nor can sliding windows go back: those begin again.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        precision: Precision,
        device: str,
        context_tokens: int,
        cache_tokens: int,
    ) -> None:
        """Hold a model, and try it; see `load`."""
        self._model = model
        self._device = device
        self._texts: dict[int, _Text] = {}  # by block
        accepted = inspect.signature(model.forward).parameters
        self._takes_logits_to_keep = "logits_to_keep" in accepted
        self._cache_name = next((name for name in _CACHES if name in accepted), None)
        self.vocab_size, self._is_recurrent, self._can_crop = self._try_out()
        self.context_tokens = min(context_tokens, cache_tokens)
        self.cache = CacheShape(
            num_blocks=max(1, cache_tokens // self.context_tokens), block_tokens=self.context_tokens
        )
        self.num_slots = 0
        self.adapter_dtype = torch.float32
        self.description = (
            f"transformers {precision}, {torch.get_num_threads()} threads"
            if device == "cpu"
            else f"transformers {precision}, {torch.cuda.get_device_name()}"
        )

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        precision: Literal["auto"] | Precision,
        device: str,
        context_tokens: int,
        cache_tokens: int,
        threads: int,
    ) -> TransformersExecutor:
        """Load a model; no code that came with it runs, and no network is asked.

        Args:
            folder: With `config.json` and `.safetensors`, as the Hub has them.
            precision: Of everything; int8 cannot be had, is bfloat16, and is logged.
            device: `cpu` or `cuda`.
            context_tokens: The longest sequence; the model's own limit is kept as well.
            cache_tokens: How many positions all sequences have together.
            threads: Of the processor; set for the whole process.

        Raises:
            ModelUnavailableError: The library does not know the model, the weights are not whole,
                the model's cache is of a kind that cannot be continued, or there is no such device.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise _refusal("There is no CUDA device here.")
        torch.set_num_threads(threads)
        try:
            chosen, reason = _choose_precision(precision, device, weights_bytes(folder))
            model = _read_model(folder, activation_dtype(chosen))
            executor = cls(
                model.to(device),  # type: ignore[arg-type] # the library's decorator hides its type
                precision=chosen,
                device=device,
                context_tokens=_context_tokens(model.config, context_tokens),
                cache_tokens=cache_tokens,
            )
        except Exception as exc:  # the library lets through whatever a checkpoint sets off
            raise _refusal(
                f"transformers cannot run the model in '{folder.name}': {_reason(exc, folder)}"
            ) from exc
        log.info("executor.loaded", extra={"executor": executor.description, "because": reason})
        return executor

    @torch.inference_mode()
    def run(self, step: Step) -> Tensor:
        for each in step.copies:
            self._texts[each.target] = self._copied(self._texts[each.source])
        return torch.cat([self._compute(piece) for piece in step.pieces])

    def put_adapter(self, slot: int, weights: AdapterWeights) -> None:
        raise InvalidRequestError(
            "Models that transformers computes take no adapters.", code="adapters_not_supported"
        )

    def drop_adapter(self, slot: int) -> None:
        """There are none."""

    @torch.inference_mode()
    def _try_out(self) -> tuple[int, bool, bool]:
        """Find out, from a text of one token, what the model is.

        Returns:
            The size of its vocabulary, whether it is recurrent, and whether its cache can go back.

        Raises:
            ModelUnavailableError: There is no cache, or none that can be continued.
        """
        from transformers.cache_utils import (  # noqa: PLC0415 # seconds, and mostly not needed
            DummyLayer,
            DynamicCache,
            DynamicLayer,
            DynamicSlidingWindowLayer,
        )

        text = _Text([0])
        logits = self._forward(text, [0], 1)
        if not isinstance(text.cache, DynamicCache) or logits.dim() != 2:
            raise _refusal(
                f"{type(self._model).__name__} keeps no cache that a text can be continued from."
            )
        # Other layers than these are recurrent, or belong to one model and may be.
        continuable = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
        is_recurrent = any(type(layer) not in continuable for layer in text.cache.layers)
        return logits.shape[1], is_recurrent, not is_recurrent and not any(text.cache.is_sliding)

    def _compute(self, piece: Piece) -> Tensor:
        """Compute a piece; returns float32 logits [num_logits, vocab_size]."""
        (block,) = piece.blocks
        if piece.start == 0:
            self._texts[block] = _Text()
        text = self._texts[block]
        self._cut(text, piece.start)
        text.token_ids.extend(piece.token_ids)
        if self._is_recurrent and not piece.num_logits:
            return torch.empty(0, self.vocab_size, device=self._device)
        missing = text.token_ids[text.num_cached :]
        if self._is_recurrent and text.cache is not None:
            parts = [[token_id] for token_id in missing]
        else:
            parts = [missing]
        rows: list[Tensor] = []
        for part in parts:
            rows = [*rows, self._forward(text, part, piece.num_logits)][-max(1, piece.num_logits) :]
        logits = torch.cat(rows)
        return logits[len(logits) - piece.num_logits :]

    def _forward(self, text: _Text, token_ids: Sequence[int], num_logits: int) -> Tensor:
        """Continue a text's cache.

        Returns:
            float32 logits of the last tokens, at least `num_logits` of them if there are so many.
        """
        options: dict[str, object] = {}
        if self._takes_logits_to_keep:
            options["logits_to_keep"] = max(1, num_logits)  # 0 means all
        if self._cache_name is not None and text.cache is not None:
            options[self._cache_name] = text.cache
        output = self._model(
            input_ids=torch.tensor([token_ids], device=self._device),
            use_cache=True,
            return_dict=True,
            **options,
        )
        if self._cache_name is not None:
            text.cache = output.get(self._cache_name)
        text.num_cached += len(token_ids)
        logits: Tensor = output.logits[0]
        return logits[-max(1, num_logits) :].float()

    def _cut(self, text: _Text, length: int) -> None:
        """Take a text back to its beginning, which was computed for another, or before."""
        assert length <= len(text.token_ids)
        del text.token_ids[length:]
        if length >= text.num_cached:
            return
        if self._can_crop and text.cache is not None:
            text.cache.crop(length - text.num_cached)
            text.num_cached = length
        else:
            text.cache = None
            text.num_cached = 0

    def _copied(self, text: _Text) -> _Text:
        """Copy a text that is going to be cut; a cache that cannot be is left out."""
        if not self._can_crop:
            return _Text(list(text.token_ids))
        return _Text(list(text.token_ids), copy.deepcopy(text.cache), text.num_cached)


def _read_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import (  # noqa: PLC0415 # seconds, and mostly not needed
        CONFIG_MAPPING,
        MODEL_FOR_CAUSAL_LM_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        PreTrainedConfig,
    )
    from transformers.utils import logging as noise  # noqa: PLC0415 # as above

    # For the whole process. What its warnings are about is refused below, or does not matter.
    noise.set_verbosity_error()  # type: ignore[no-untyped-call] # the library leaves it out
    noise.disable_progress_bar()  # type: ignore[no-untyped-call] # as above
    fields, _ = PreTrainedConfig.get_config_dict(folder, local_files_only=True)
    model_type = fields.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise _refusal(f"Models of type '{model_type}' are not known.")
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise _refusal(f"Models of type '{model_type}' do not write text.")
    loaded: object = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        # The configuration may name kernels, which would be fetched from the Hub.
        attn_implementation=None,
        experts_implementation=None,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # so that they are named, and refused here
        output_loading_info=True,
    )
    model, found = cast("tuple[PreTrainedModel, _LoadingInfo]", loaded)
    # The library would go on with random numbers in their place.
    if found["missing_keys"]:
        raise _refusal(f"The weights lack the tensor '{min(found['missing_keys'])}'.")
    if found["mismatched_keys"]:
        name, stored, expected = min(found["mismatched_keys"])
        raise _refusal(f"Tensor '{name}' is {list(stored)}; the model has {list(expected)}.")
    if getattr(config, "quantization_config", None) and found["unexpected_keys"]:
        raise _refusal("Its weights are quantised in a way that cannot be read here.")
    return model


def _choose_precision(
    wanted: Literal["auto"] | Precision, device: str, model_bytes: int
) -> tuple[Precision, str]:
    """Choose what computes, and say why it is this."""
    if wanted == "int8":
        return "bfloat16", "transformers does not compute in int8"
    if wanted != "auto":
        return wanted, "as asked for"
    if device != "cpu":
        return "bfloat16", f"{device} multiplies it fastest"
    if model_bytes < SMALL_MODEL_BYTES:
        return "float32", "the model is small"
    if torch.cpu.get_capabilities().get("avx512_bf16"):
        return "bfloat16", "the processor multiplies it"
    return "float32", "the processor does not multiply bfloat16"


def _context_tokens(config: PreTrainedConfig, wanted: int) -> int:
    decoder = config.get_text_config(decoder=True)
    for name in _CONTEXTS:
        limit = getattr(decoder, name, None)
        if isinstance(limit, int) and limit > 0:
            return min(wanted, limit)
    return wanted


def _refusal(reason: str) -> ModelUnavailableError:
    return ModelUnavailableError(reason, code="model_load_failed")


def _reason(exc: Exception, folder: Path) -> str:
    """Say on one line, and without the path, why a model was not loaded."""
    text = " ".join(str(exc).split()).replace(str(folder), folder.name)
    if isinstance(exc, ModelUnavailableError):
        return text
    return f"{type(exc).__name__}: {text[:_MAX_REASON_CHARS]}"
