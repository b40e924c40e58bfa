"""Compares the ensemble's rankings with those of public libraries on the same split."""
