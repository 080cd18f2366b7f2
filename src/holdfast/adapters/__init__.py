"""Holdfast in the places where other libraries look for a memory. Each file needs its library, and none of the others."""
