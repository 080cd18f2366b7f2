"""Measuring memory: data, metrics, protocols."""
