"""Errors, ids, units, time: what every other package may import."""
