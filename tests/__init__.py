"""Tests, in a folder for each thing they need."""
