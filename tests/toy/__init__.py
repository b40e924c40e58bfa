"""Toy data for the tests: ratings matrices, releases, running services and certificates.

- `toy.ratings` builds a ratings matrix from a dense array.
- `toy.release` publishes small releases whose models have random parameters.
- `toy.services` runs the gateway and both scoring services over such a release, in the test's
  own process.
- `toy.certificates` issues TLS certificates.
"""
