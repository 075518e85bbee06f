"""Benchmarks; README.md tells the method."""

from pathlib import Path

RESULTS = Path(__file__).parent / "results"
RESULTS.mkdir(exist_ok=True)
