"""Batches: read, answered line by line in idle time, gathered into files."""
