"""Tests of subjects, filters and ranking."""
