"""Compares how long neighbourhood models take to fit with public libraries."""
