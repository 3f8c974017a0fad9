"""Answers that are given again: exact, alike, and one for many who ask at once."""
