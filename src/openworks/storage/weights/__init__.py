"""Weights on this machine: shipped with the package, given by path, or fetched from the Hub."""
