"""Adapters behind the ports that keep state."""
