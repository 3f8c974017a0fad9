"""Many adapters in one batch: the batched engine beside what others do on the same machine."""
