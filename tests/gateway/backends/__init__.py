"""Tests of calls to the backends."""
