"""Measurements: each prints its hardware, its command, and ratios taken in one run."""
