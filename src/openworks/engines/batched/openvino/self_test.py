"""Computes a small attention both ways, as OpenVINO promises nothing about that operation."""

from __future__ import annotations

import openvino as ov
import torch
import torch.nn.functional as F  # noqa: N812 # as everyone calls it
from openvino import opset13 as ops

from openworks.engines.batched.openvino.attention import Heads, Paging, paged_attention
from openworks.engines.batched.openvino.cache import PagedCache
from openworks.engines.batched.openvino.tensors import shared_tensor

_HEADS, _HEAD_DIM, _TOKENS = 2, 16, 5
_TOLERANCE = 1e-3


def attention_fault() -> str | None:
    """Return why attention cannot be computed here; None if it can."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(3, _TOKENS, _HEADS, _HEAD_DIM, generator=generator)
    q, k, v = (part.transpose(0, 1) for part in qkv)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1)
    try:
        found = _attend(qkv.view(3, _TOKENS, _HEADS * _HEAD_DIM))
    except (AttributeError, RuntimeError, TypeError) as exc:
        reason = str(exc).strip().splitlines()[-1:] or [type(exc).__name__]
        return f"OpenVINO {ov.get_version()} has another paged attention: {reason[0]}"
    if not torch.allclose(found, expected.reshape(found.shape), atol=_TOLERANCE):
        return f"OpenVINO {ov.get_version()} computes another attention than torch"
    return None


def _attend(qkv: torch.Tensor) -> torch.Tensor:
    """Attend in two steps, the last token after the others, from a block that is not the first."""
    width = _HEADS * _HEAD_DIM
    inputs = {name: _input(name, ov.Type.f32, [-1, width]) for name in ("q", "k", "v")}
    caches = {
        name: _input(name, ov.Type.dynamic, [-1, -1, -1, -1])
        for name in ("key_cache.0", "value_cache.0")
    }
    places = {
        name: _input(name, ov.Type.i32, [-1])
        for name in (
            "past_lens",
            "subsequence_begins",
            "block_indices",
            "block_indices_begins",
        )
    }
    places["max_context_len"] = _input("max_context_len", ov.Type.i32, [])
    heads = Heads(num_kv_heads=_HEADS, head_dim=_HEAD_DIM, scale=_HEAD_DIM**-0.5, window=None)
    attended = paged_attention(
        list(inputs.values()), list(caches.values()), Paging(**places), heads
    )
    graph = ov.Model([ops.result(attended)], [*inputs.values(), *caches.values(), *places.values()])
    options = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    compiled = ov.Core().compile_model(graph, "CPU", {**options, "INFERENCE_NUM_THREADS": 1})
    request = compiled.create_infer_request()
    cache = PagedCache(compiled, 2)  # held: a request does not hold what it was given
    for name, tensor in cache.tensors.items():
        request.set_tensor(name, tensor)
    found = []
    for start, end in ((0, _TOKENS - 1), (_TOKENS - 1, _TOKENS)):
        values = dict(zip(inputs, qkv[:, start:end], strict=True))
        values["past_lens"] = torch.tensor([start], dtype=torch.int32)
        values["subsequence_begins"] = torch.tensor([0, end - start], dtype=torch.int32)
        values["block_indices"] = torch.tensor([1], dtype=torch.int32)
        values["block_indices_begins"] = torch.tensor([0, 1], dtype=torch.int32)
        values["max_context_len"] = torch.tensor(end, dtype=torch.int32)
        for name, value in values.items():
            request.set_tensor(name, shared_tensor(value.contiguous()))
        request.infer()
        found.append(torch.from_numpy(request.get_output_tensor(0).data).clone())
    return torch.cat(found)


def _input(name: str, kind: ov.Type, shape: list[int]) -> ov.op.Parameter:
    node = ops.parameter(ov.PartialShape(shape), kind, name=name)
    node.output(0).get_tensor().set_names({name})
    return node
