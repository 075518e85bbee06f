"""The tests of Shortpick."""
