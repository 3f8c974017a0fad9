"""What may pass a gateway now: rates, budgets, and turns when there are not enough slots."""
