"""What to do when a provider fails: wait and ask again, leave it alone, or ask another."""
