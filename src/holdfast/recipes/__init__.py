"""Experiential memories by name: how an agent learns from what it did."""
