"""Low-rank layers on our own network, and the files in which PEFT keeps them."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.chat.model import Llama, LlamaShape
from training.folders import write_json

BASE_MODEL = "@openworks/tiny-chat"
RANK = 8
ALPHA = 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LowRankLinear(nn.Module):
    """A frozen linear layer and, added to it, `alpha / rank` times B A."""

    def __init__(self, base: nn.Linear, *, rank: int, alpha: int) -> None:
        super().__init__()
        self.base = base
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        self.scale = alpha / rank
        nn.init.zeros_(self.lora_B.weight)  # so that training starts at the base model

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform every position; `hidden` is [batch, length, in_features]."""
        added: Tensor = self.base(hidden) + self.scale * self.lora_B(self.lora_A(hidden))
        return added


def load_base(folder: Path) -> Llama:
    """The shipped model in float32, frozen."""
    model = Llama(LlamaShape())
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({k.removeprefix("model."): v.float() for k, v in weights.items()})
    model.requires_grad_(False)
    return model


def add_adapter(model: Llama) -> list[nn.Parameter]:
    """Put a low-rank layer around every target and return what there is to train."""
    for layer in model.layers:
        for block in layer.children():
            for name in TARGETS:
                linear = getattr(block, name, None)
                if isinstance(linear, nn.Linear):
                    setattr(block, name, LowRankLinear(linear, rank=RANK, alpha=ALPHA))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def save_adapter(model: Llama, folder: Path) -> None:
    """Write what PEFT's `save_pretrained` writes for the same adapter.

    The weights are float16: they lie far inside its range, and it keeps more of them than
    bfloat16 does. `model_type` is not PEFT's (which says so once and ignores it): Cloudflare
    asks for it in every adapter that is uploaded.
    """
    tensors = {
        f"base_model.model.model.{name}": weight.detach().to(torch.float16).contiguous()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    path = folder / "adapter_model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # save_file makes it private
    write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": BASE_MODEL,
            "model_type": "llama",
            "r": RANK,
            "lora_alpha": ALPHA,
            "lora_dropout": 0.0,
            "target_modules": list(TARGETS),
            "bias": "none",
            "fan_in_fan_out": False,
            "use_rslora": False,
            "use_dora": False,
            "modules_to_save": None,
            "inference_mode": True,
        },
    )
