"""Toy data and helpers that many tests share; it has no tests.

Start with `toy.release`, a small release whose models have random parameters, and `toy.services`,
which serves it. `toy.ratings` builds ratings matrices, `toy.ratings_files` writes ratings to files,
and `toy.waiting` waits for conditions. The README of the tests lists the other modules.

The package may import the packages of the project and what they need, but no tests.
"""
