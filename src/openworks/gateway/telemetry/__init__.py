"""OpenTelemetry: a span for every call of a gateway that has somewhere to send them."""
