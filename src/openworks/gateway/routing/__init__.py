"""Dynamic routes: a graph that chooses models, and the walk through it."""
