"""What processes share through Redis or Valkey: the only package that imports its client."""
