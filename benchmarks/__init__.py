"""Benchmarks; `benchmarks/README.md` explains the method."""
