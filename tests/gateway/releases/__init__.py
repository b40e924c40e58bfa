"""Tests of the releases that the gateway serves."""
