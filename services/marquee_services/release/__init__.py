"""Releases: immutable, versioned sets of artifacts, and the store that keeps them."""
