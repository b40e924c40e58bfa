"""Tests of recorded feedback."""
