"""The OpenAI dialect: requests checked against the types of the `openai` package."""
