"""Attacks played against Holdfast and against memories without its defence: what they reach, and what the defence costs."""
