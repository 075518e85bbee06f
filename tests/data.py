"""Where the real orders and the worked decision cases are."""

from pathlib import Path

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
