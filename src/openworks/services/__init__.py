"""What outlives a call: the catalogue, keys, stored completions, usage."""
