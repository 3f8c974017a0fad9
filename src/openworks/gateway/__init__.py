"""What happens around one model call, whatever the route it came by."""
