"""Measurements, never assertions. `make bench` runs them all in one go: every ratio is of one machine and time."""
