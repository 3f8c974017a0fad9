"""Shapes of the Cloudflare API: its envelope, its errors, and the nouns of its control plane."""
