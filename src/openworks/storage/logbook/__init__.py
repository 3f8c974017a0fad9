"""A process of its own that writes finished calls: rows, bodies, sums, and what is due to go."""
