"""Feeds damaged input to every parser (`make fuzz`)."""
