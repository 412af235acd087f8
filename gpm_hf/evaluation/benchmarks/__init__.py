"""Benchmarks that others published, and the rings of cyclic data."""
