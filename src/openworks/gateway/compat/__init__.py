"""OpenAI's shape for providers that have another one: pure translators, and the model's name."""
