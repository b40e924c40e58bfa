"""Tests of the caches and of page tokens."""
