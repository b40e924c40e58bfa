"""Tests of experiments in the gateway."""
