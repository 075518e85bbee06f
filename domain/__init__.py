"""Orders, events and decisions, and nothing else: no clock, no database, no queue, no environment."""
