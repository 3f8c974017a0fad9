"""Model families: each turns a `config.json` into a `ModelSpec`."""
