"""The chat model: generated conversations, a tokenizer, a small Llama, its exports."""
