"""Working memory of one run: how an agent reads, acts and writes back."""
