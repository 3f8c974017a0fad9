"""A deployment as llama.cpp's parameters."""

from __future__ import annotations

from pathlib import Path

import xllamacpp

from openworks.core.errors import InvalidRequestError
from openworks.core.gguf import read_header
from openworks.engines.llamacpp.adapters import write_gguf
from openworks.engines.threads import default_threads
from openworks.ports.adapters import Adapter
from openworks.ports.catalog import Deployment

PROMPT_CACHE_MIB = 256
"""Host memory for prompts whose slot was taken by another conversation."""


def common_params(deployment: Deployment, socket: Path) -> xllamacpp.CommonParams:
    """Return the parameters with which llama.cpp serves `deployment`.

    Args:
        deployment: Its `context_tokens` is what one request may use; llama.cpp's own `n_ctx` is
            the sum over all slots.
        socket: Where llama.cpp may put the HTTP port that it opens in any case.
    """
    params = xllamacpp.CommonParams()
    params.model.path = str(deployment.weights)
    if deployment.mmproj is not None:
        params.mmproj.path = str(deployment.mmproj)
    params.hostnames = [str(socket)]
    params.verbosity = 1  # errors; its ordinary chatter tells a user nothing
    # Prompts are read in such steps, and a request can be cancelled between two. Longer ones are no
    # faster on a processor (measured from 64 on), and whoever comes waits for the one under way.
    params.n_batch = 128
    params.n_parallel = deployment.parallel
    params.n_ctx = (deployment.context_tokens or 0) * deployment.parallel
    params.fit_params = False  # it would shrink the context silently
    params.ctx_shift = False  # it would drop the beginning of a conversation silently
    params.cache_ram_mib = PROMPT_CACHE_MIB
    # A last message of the assistant is a turn that is over, as with OpenAI, not one to go on with.
    params.prefill_assistant = False
    params.warmup = False
    params.ui = False
    threads = deployment.threads or default_threads(deployment.weights.stat().st_size)
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    _set_task(params, deployment)
    if deployment.adapter is not None:
        params.lora_adapters = [_lora(deployment.adapter, deployment.weights)]
    if deployment.entry.template:
        params.chat_template = deployment.entry.template
        params.use_jinja = False  # with Jinja on, a built-in template's name is read as a template
    return params


def _lora(adapter: Adapter, weights: Path) -> xllamacpp.CommonAdapterLoraInfo:
    """Return an adapter as llama.cpp takes it, converting it on its first use."""
    path = adapter.folder / f"{adapter.generation}.gguf"
    if not path.exists():
        write_gguf(adapter.folder, path, read_header(weights))
    return xllamacpp.CommonAdapterLoraInfo(str(path), 1.0)


def _set_task(params: xllamacpp.CommonParams, deployment: Deployment) -> None:
    match deployment.entry.task:
        case "text-generation":
            pass
        case "text-embeddings":
            params.embedding = True
        case "rerank":
            params.embedding = True
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
        case task:
            raise InvalidRequestError(
                f"llama.cpp does not serve {task}, the task of {deployment.id!r}."
            )
    if params.embedding:
        # llama.cpp wants a whole input in one physical batch.
        params.n_batch = max(params.n_batch, deployment.context_tokens or 0)
        params.n_ubatch = params.n_batch
        # Inputs of unequal length would be read in several steps otherwise, and of a causal model's
        # vectors only the last step be pooled.
        params.kv_unified = True
