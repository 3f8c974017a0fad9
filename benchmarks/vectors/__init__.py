"""Which embedded vector index answers best, with and without filters, and what each costs."""
