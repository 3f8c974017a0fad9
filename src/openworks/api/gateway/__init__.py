"""The AI Gateway's data plane over HTTP and WebSocket."""
