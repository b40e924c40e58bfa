"""Compares the fitting times of neighbourhood models with those of public libraries."""
