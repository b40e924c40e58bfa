"""Tests of how calls are answered."""
