"""Faults of every kind at every place, and what is left afterwards: `make faults`."""
