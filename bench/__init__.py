"""Measurements; not part of the package. `python -m bench` prints a table and writes it into BENCHMARKS.md."""
