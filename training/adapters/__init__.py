"""Three LoRA adapters for the embedded chat model, trained from nothing but this folder."""
