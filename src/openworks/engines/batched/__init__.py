"""Our own engine: continuous batching, with many LoRA adapters in one batch."""
