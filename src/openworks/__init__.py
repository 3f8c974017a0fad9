"""The OpenAI API and Cloudflare's AI platform APIs, served on open models, on your own machines."""

__version__ = "0.1.0"
