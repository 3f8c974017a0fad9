"""The servers that the gateway calls: where they are, who may ask them, how they answer."""
