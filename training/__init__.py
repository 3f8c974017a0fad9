"""Recipes that make the embedded models from nothing but this repository."""
