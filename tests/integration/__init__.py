"""Tests against real servers: Redis and PostgreSQL."""
