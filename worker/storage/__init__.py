"""The tables, and functions that read and write many rows at once."""
