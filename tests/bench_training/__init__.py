"""Compares the fitting of neighbourhoods with public libraries, and measures large data."""
