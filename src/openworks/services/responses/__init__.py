"""Responses: made, worked on, told to their listeners."""
