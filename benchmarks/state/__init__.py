"""What the stateful API withstands, and how fast it is."""
