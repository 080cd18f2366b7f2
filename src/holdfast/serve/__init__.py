"""Holdfast for programs that are not in Python, or not on this machine."""
