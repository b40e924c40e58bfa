"""Releases: the manifest, the store that publishes and promotes them, and the files inside.

A release becomes visible in `publish.py`, and comes into production in `pointer.py`.
`contents.py` reads and writes the files of a release, and `ensemble.py` its ensemble weights. May
import the rest of `marquee_core`. Start with `manifest.py`.
"""
