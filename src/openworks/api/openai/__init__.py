"""The OpenAI API, one module per noun."""
