"""Tests of how each call is answered."""
