"""Benchmarks; README.md tells the method."""

from pathlib import Path

RESULTS = Path(__file__).parent / "results"
