"""Runs of assistants: made, worked on, told to their listeners."""
