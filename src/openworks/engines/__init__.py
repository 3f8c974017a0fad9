"""Tokens in, tokens out: what runs weights, each engine in a process of its own."""
