"""Attacks on a memory, as data: what an attacker writes, what is asked afterwards, and what would be done by whoever obeys."""
