"""Compares the ensemble's ranking with that of public libraries, on the same split."""
