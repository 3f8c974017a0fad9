"""The AI Gateway under load and under faults, beside other gateways."""
