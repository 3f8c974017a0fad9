"""What the inside asks of the outside: protocols and the dataclasses they speak."""
