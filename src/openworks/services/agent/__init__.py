"""The agent loop that runs and responses share."""
