"""What may be said through a gateway: data loss prevention, and guardrails by content category."""
